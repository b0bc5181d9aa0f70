package batchai

import (
	"strings"

	"github.com/shoal-pool/shoal"
)

// size is what a machine of Azure has: processors, GiB of memory, GPUs.
type size struct {
	name   string
	cpus   int
	memory float64
	gpus   int
}

// sizes are those that Batch AI offered, as the provider's pages had them, without what is before and behind:
// Standard_NC6s_v2 is nc6s_v2. Those whose storage is premium have an s that changes nothing here.
var sizes = []size{
	{"a1", 1, 1.75, 0}, {"a2", 2, 3.5, 0}, {"a3", 4, 7, 0}, {"a4", 8, 14, 0}, {"a5", 2, 14, 0}, {"a6", 4, 28, 0}, {"a7", 8, 56, 0},
	{"a8", 8, 56, 0}, {"a9", 16, 112, 0}, {"a10", 8, 56, 0}, {"a11", 16, 112, 0},
	{"a1_v2", 1, 2, 0}, {"a2_v2", 2, 4, 0}, {"a4_v2", 4, 8, 0}, {"a8_v2", 8, 16, 0}, {"a2m_v2", 2, 16, 0}, {"a4m_v2", 4, 32, 0}, {"a8m_v2", 8, 64, 0},
	{"d1", 1, 3.5, 0}, {"d2", 2, 7, 0}, {"d3", 4, 14, 0}, {"d4", 8, 28, 0}, {"d11", 2, 14, 0}, {"d12", 4, 28, 0}, {"d13", 8, 56, 0}, {"d14", 16, 112, 0},
	{"d1_v2", 1, 3.5, 0}, {"d2_v2", 2, 7, 0}, {"d3_v2", 4, 14, 0}, {"d4_v2", 8, 28, 0}, {"d5_v2", 16, 56, 0},
	{"d11_v2", 2, 14, 0}, {"d12_v2", 4, 28, 0}, {"d13_v2", 8, 56, 0}, {"d14_v2", 16, 112, 0}, {"d15_v2", 20, 140, 0},
	{"d2_v3", 2, 8, 0}, {"d4_v3", 4, 16, 0}, {"d8_v3", 8, 32, 0}, {"d16_v3", 16, 64, 0}, {"d32_v3", 32, 128, 0}, {"d64_v3", 64, 256, 0},
	{"e2_v3", 2, 16, 0}, {"e4_v3", 4, 32, 0}, {"e8_v3", 8, 64, 0}, {"e16_v3", 16, 128, 0}, {"e32_v3", 32, 256, 0}, {"e64_v3", 64, 432, 0},
	{"f1", 1, 2, 0}, {"f2", 2, 4, 0}, {"f4", 4, 8, 0}, {"f8", 8, 16, 0}, {"f16", 16, 32, 0},
	{"f2_v2", 2, 4, 0}, {"f4_v2", 4, 8, 0}, {"f8_v2", 8, 16, 0}, {"f16_v2", 16, 32, 0}, {"f32_v2", 32, 64, 0}, {"f64_v2", 64, 128, 0}, {"f72_v2", 72, 144, 0},
	{"g1", 2, 28, 0}, {"g2", 4, 56, 0}, {"g3", 8, 112, 0}, {"g4", 16, 224, 0}, {"g5", 32, 448, 0},
	{"h8", 8, 56, 0}, {"h16", 16, 112, 0}, {"h8m", 8, 112, 0}, {"h16m", 16, 224, 0}, {"h16r", 16, 112, 0}, {"h16mr", 16, 224, 0},
	{"m64", 64, 1024, 0}, {"m64m", 64, 1792, 0}, {"m128", 128, 2048, 0}, {"m128m", 128, 3892, 0},
	{"nc6", 6, 56, 1}, {"nc12", 12, 112, 2}, {"nc24", 24, 224, 4}, {"nc24r", 24, 224, 4},
	{"nc6_v2", 6, 112, 1}, {"nc12_v2", 12, 224, 2}, {"nc24_v2", 24, 448, 4}, {"nc24r_v2", 24, 448, 4},
	{"nc6_v3", 6, 112, 1}, {"nc12_v3", 12, 224, 2}, {"nc24_v3", 24, 448, 4}, {"nc24r_v3", 24, 448, 4},
	{"nd6", 6, 112, 1}, {"nd12", 12, 224, 2}, {"nd24", 24, 448, 4}, {"nd24r", 24, 448, 4}, {"nd40_v2", 40, 672, 8}, {"nd40r_v2", 40, 672, 8},
	{"nv6", 6, 56, 1}, {"nv12", 12, 112, 2}, {"nv24", 24, 224, 4},
}

// sizeOf finds a size in whatever case and with or without the s of premium storage.
func sizeOf(name string) (size, bool) {
	bare := strings.ToLower(strings.TrimSpace(name))
	bare = strings.TrimPrefix(strings.TrimPrefix(bare, "standard_"), "basic_")
	if s, ok := sizeNamed(bare); ok {
		return s, true
	}
	// ds4_v2 is d4_v2, and nc24rs_v3 is nc24r_v3.
	head, tail, _ := strings.Cut(bare, "_")
	if tail != "" {
		tail = "_" + tail
	}
	if strings.HasSuffix(head, "s") {
		if s, ok := sizeNamed(strings.TrimSuffix(head, "s") + tail); ok {
			return s, true
		}
	}
	if i := strings.Index(head, "s"); i == 1 {
		return sizeNamed(head[:1] + head[2:] + tail)
	}
	return size{}, false
}

func sizeNamed(name string) (size, bool) {
	for _, s := range sizes {
		if s.name == name {
			return s, true
		}
	}
	return size{}, false
}

// resources is the size in our words.
func (s size) resources() shoal.Resources {
	return shoal.Resources{CPUs: shoal.MilliCPU(s.cpus * 1000), Memory: shoal.Bytes(s.memory * (1 << 30)), GPUs: s.gpus}
}

// sizesLike are the names of sizes of a family, to suggest from.
func sizesLike(name string) []string {
	bare := strings.TrimPrefix(strings.ToLower(name), "standard_")
	family, _, _ := strings.Cut(strings.TrimRight(bare, "0123456789_vrsm"), "_")
	if family = strings.TrimRight(family, "0123456789_rsm"); family == "" {
		return nil
	}
	var all []string
	for _, s := range sizes {
		if strings.HasPrefix(s.name, family) {
			all = append(all, "STANDARD_"+strings.ToUpper(s.name))
		}
	}
	return all
}
