// Package sizes knows what virtual machines of Azure's sizes have.
package sizes

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// size is what a machine has: processors, GiB of memory, GPUs.
type size struct {
	name   string
	cpus   int
	memory float64
	gpus   int
}

// listed are sizes as the provider's pages have them, without what is before: Standard_NC6_v2 is nc6_v2. Families
// whose memory follows from the number of their processors are regular, below.
var listed = []size{
	{"a0", 1, 0.75, 0}, {"a1", 1, 1.75, 0}, {"a2", 2, 3.5, 0}, {"a3", 4, 7, 0}, {"a4", 8, 14, 0}, {"a5", 2, 14, 0}, {"a6", 4, 28, 0}, {"a7", 8, 56, 0},
	{"a8", 8, 56, 0}, {"a9", 16, 112, 0}, {"a10", 8, 56, 0}, {"a11", 16, 112, 0},
	{"a1_v2", 1, 2, 0}, {"a2_v2", 2, 4, 0}, {"a4_v2", 4, 8, 0}, {"a8_v2", 8, 16, 0}, {"a2m_v2", 2, 16, 0}, {"a4m_v2", 4, 32, 0}, {"a8m_v2", 8, 64, 0},
	{"b1ls", 1, 0.5, 0}, {"b1s", 1, 1, 0}, {"b1ms", 1, 2, 0}, {"b2s", 2, 4, 0}, {"b2ms", 2, 8, 0}, {"b4ms", 4, 16, 0}, {"b8ms", 8, 32, 0}, {"b12ms", 12, 48, 0}, {"b16ms", 16, 64, 0}, {"b20ms", 20, 80, 0},
	{"d1", 1, 3.5, 0}, {"d2", 2, 7, 0}, {"d3", 4, 14, 0}, {"d4", 8, 28, 0}, {"d11", 2, 14, 0}, {"d12", 4, 28, 0}, {"d13", 8, 56, 0}, {"d14", 16, 112, 0},
	{"d1_v2", 1, 3.5, 0}, {"d2_v2", 2, 7, 0}, {"d3_v2", 4, 14, 0}, {"d4_v2", 8, 28, 0}, {"d5_v2", 16, 56, 0},
	{"d11_v2", 2, 14, 0}, {"d12_v2", 4, 28, 0}, {"d13_v2", 8, 56, 0}, {"d14_v2", 16, 112, 0}, {"d15_v2", 20, 140, 0},
	{"e64_v3", 64, 432, 0}, {"e64i_v3", 64, 432, 0}, {"e20_v3", 20, 160, 0},
	{"f1", 1, 2, 0}, {"f2", 2, 4, 0}, {"f4", 4, 8, 0}, {"f8", 8, 16, 0}, {"f16", 16, 32, 0},
	{"g1", 2, 28, 0}, {"g2", 4, 56, 0}, {"g3", 8, 112, 0}, {"g4", 16, 224, 0}, {"g5", 32, 448, 0},
	{"h8", 8, 56, 0}, {"h16", 16, 112, 0}, {"h8m", 8, 112, 0}, {"h16m", 16, 224, 0}, {"h16r", 16, 112, 0}, {"h16mr", 16, 224, 0},
	{"hb60rs", 60, 228, 0}, {"hc44rs", 44, 352, 0}, {"hb120rs_v2", 120, 456, 0}, {"hb120rs_v3", 120, 448, 0},
	{"l4", 4, 32, 0}, {"l8", 8, 64, 0}, {"l16", 16, 128, 0}, {"l32", 32, 256, 0}, {"l8_v2", 8, 64, 0}, {"l16_v2", 16, 128, 0}, {"l32_v2", 32, 256, 0}, {"l48_v2", 48, 384, 0}, {"l64_v2", 64, 512, 0}, {"l80_v2", 80, 640, 0},
	{"m8m", 8, 218.75, 0}, {"m16m", 16, 437.5, 0}, {"m32ts", 32, 192, 0}, {"m32ls", 32, 256, 0}, {"m32m", 32, 875, 0}, {"m64ls", 64, 512, 0}, {"m64", 64, 1024, 0}, {"m64m", 64, 1792, 0}, {"m128", 128, 2048, 0}, {"m128m", 128, 3892, 0},
	{"nc6", 6, 56, 1}, {"nc12", 12, 112, 2}, {"nc24", 24, 224, 4}, {"nc24r", 24, 224, 4},
	{"nc6_v2", 6, 112, 1}, {"nc12_v2", 12, 224, 2}, {"nc24_v2", 24, 448, 4}, {"nc24r_v2", 24, 448, 4},
	{"nc6_v3", 6, 112, 1}, {"nc12_v3", 12, 224, 2}, {"nc24_v3", 24, 448, 4}, {"nc24r_v3", 24, 448, 4},
	{"nc4as_t4_v3", 4, 28, 1}, {"nc8as_t4_v3", 8, 56, 1}, {"nc16as_t4_v3", 16, 110, 1}, {"nc64as_t4_v3", 64, 440, 4},
	{"nc24ads_a100_v4", 24, 220, 1}, {"nc48ads_a100_v4", 48, 440, 2}, {"nc96ads_a100_v4", 96, 880, 4},
	{"nd6", 6, 112, 1}, {"nd12", 12, 224, 2}, {"nd24", 24, 448, 4}, {"nd24r", 24, 448, 4}, {"nd40_v2", 40, 672, 8}, {"nd40r_v2", 40, 672, 8}, {"nd96asr_v4", 96, 900, 8}, {"nd96amsr_a100_v4", 96, 1900, 8},
	{"nv6", 6, 56, 1}, {"nv12", 12, 112, 2}, {"nv24", 24, 224, 4}, {"nv6_v2", 6, 112, 1}, {"nv12_v2", 12, 224, 2}, {"nv24_v2", 24, 448, 4},
	{"nv12_v3", 12, 112, 1}, {"nv24_v3", 24, 224, 2}, {"nv48_v3", 48, 448, 4}, {"nv4as_v4", 4, 14, 1}, {"nv8as_v4", 8, 28, 1}, {"nv16as_v4", 16, 56, 1}, {"nv32as_v4", 32, 112, 1},
}

// regular are families with so many GiB for each processor: d8s_v3 has 32.
var regular = []struct {
	family   string
	versions string
	perCPU   float64
}{{"d", "3456", 4}, {"dc", "23", 4}, {"e", "3456", 8}, {"f", "2", 2}, {"l", "3", 8}, {"b", "2", 4}}

// processors are how many a machine of a regular family may have.
var processors = []int{1, 2, 4, 8, 16, 20, 32, 48, 64, 72, 80, 96, 104, 112, 128}

var (
	form        = regexp.MustCompile(`^([a-z]+?)(\d+)(?:-(\d+))?([a-z]*)((?:_[a-z0-9]+?)*?)(?:_v(\d+))?$`)
	beforeTheir = regexp.MustCompile(`^(standard|basic)_`)
)

// Of finds a size in whatever case. Letters that say only which disks a machine has change nothing.
func Of(name string) (shoal.Resources, bool) {
	bare := beforeTheir.ReplaceAllString(strings.ToLower(strings.TrimSpace(name)), "")
	if s, ok := named(bare); ok {
		return s, true
	}
	m := form.FindStringSubmatch(bare)
	if m == nil {
		return shoal.Resources{}, false
	}
	family, features, version := m[1], m[4], m[6]
	tail := m[5]
	if version != "" {
		tail += "_v" + version
	}
	found, ok := firstOf(family, m[2], features, tail)
	if !ok {
		found, ok = computed(family, m[2], features, version)
	}
	if ok && m[3] != "" { // e16-4s_v3 has the memory of an e16s_v3 and 4 processors
		n, err := strconv.Atoi(m[3])
		ok = err == nil && n > 0 && shoal.MilliCPU(n*1000) <= found.CPUs
		found.CPUs = shoal.MilliCPU(n * 1000)
	}
	return found, ok
}

// firstOf tries spellings: ds4_v2 is d4_v2, nc24rs_v3 is nc24r_v3.
func firstOf(family, number, features, tail string) (shoal.Resources, bool) {
	for _, f := range []string{family, strings.TrimSuffix(family, "s")} {
		for _, letters := range []string{features, strings.TrimSuffix(features, "s"), strings.Trim(features, "sd")} {
			if s, ok := named(f + number + letters + tail); ok {
				return s, true
			}
		}
	}
	return shoal.Resources{}, false
}

func computed(family, number, features, version string) (shoal.Resources, bool) {
	n, err := strconv.Atoi(number)
	if err != nil || !slices.Contains(processors, n) || strings.Trim(features, "adilmpst") != "" {
		return shoal.Resources{}, false
	}
	if len(family) > 1 {
		family = strings.TrimSuffix(family, "s")
	}
	for _, r := range regular {
		if r.family != family || version == "" || !strings.Contains(r.versions, version) {
			continue
		}
		per := r.perCPU
		if r.family == "d" && strings.Contains(features, "l") {
			per = 2
		}
		return of(size{cpus: n, memory: per * float64(n)}), true
	}
	return shoal.Resources{}, false
}

func named(name string) (shoal.Resources, bool) {
	i := slices.IndexFunc(listed, func(s size) bool { return s.name == name })
	if i < 0 {
		return shoal.Resources{}, false
	}
	return of(listed[i]), true
}

func of(s size) shoal.Resources {
	return shoal.Resources{CPUs: shoal.MilliCPU(s.cpus * 1000), Memory: shoal.Bytes(math.Round(s.memory * (1 << 30))), GPUs: s.gpus}
}

// Like are names of sizes to suggest from.
func Like(name string) []string {
	bare := beforeTheir.ReplaceAllString(strings.ToLower(strings.TrimSpace(name)), "")
	family := strings.TrimRight(bare, "0123456789_-vrsmadlit")
	if family == "" {
		family = bare[:min(len(bare), 1)]
	}
	all := []string{"Standard_D2s_v3", "Standard_D4s_v3", "Standard_E4s_v3", "Standard_F4s_v2"}
	for _, s := range listed {
		if family != "" && strings.HasPrefix(s.name, family) {
			all = append(all, "Standard_"+strings.ToUpper(s.name[:len(family)])+strings.ReplaceAll(strings.ToUpper(s.name[len(family):]), "_V", "_v"))
		}
	}
	return all
}
