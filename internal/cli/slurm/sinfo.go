package slurm

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// sinfo lists the pools as partitions.
func (c *command) sinfo(ctx context.Context, args []string) error {
	f := c.flags()
	format := f.StringP("format", "o", "%9P %.5a %.10l %.6D %.6t %N", "")
	noHeader := f.BoolP("noheader", "h", false, "")
	f.BoolP("summarize", "s", false, "")
	f.BoolP("Node", "N", false, "")
	f.BoolP("long", "l", false, "")
	pool := f.StringP("partition", "p", "", "")
	if err := f.Parse(unabbreviated(f, args)); err != nil {
		return badOption(err)
	}
	to, err := c.Connect()
	if err != nil {
		return err
	}
	pools, err := to.Pools(ctx)
	if err != nil {
		return err
	}
	machines, err := to.Machines(ctx, client.MachineQuery{})
	if err != nil {
		return err
	}
	var of []shoal.Pool
	batch := 0
	for _, p := range pools {
		if p.Has(shoal.UseBatch) {
			batch++
		}
	}
	for _, p := range pools {
		if p.Has(shoal.UseBatch) && matches(words(*pool), string(p.Name)) {
			p.Default = p.Default || batch == 1
			of = append(of, p)
		}
	}
	columns, err := parseFormat(*format, partitionColumns(machines), column[shoal.Pool]{value: func(shoal.Pool) string { return "n/a" }})
	if err != nil {
		return err
	}
	table(c.Stdout, columns, of, !*noHeader)
	return nil
}

// partitionColumns are the letters of sinfo's --format.
func partitionColumns(machines []shoal.Machine) map[byte]column[shoal.Pool] {
	return map[byte]column[shoal.Pool]{
		'P': {title: "PARTITION", value: func(p shoal.Pool) string {
			if p.Default {
				return string(p.Name) + "*"
			}
			return string(p.Name)
		}},
		'R': {title: "PARTITION", value: func(p shoal.Pool) string { return string(p.Name) }},
		'a': {title: "AVAIL", value: func(p shoal.Pool) string { return "up" }},
		'l': {title: "TIMELIMIT", value: func(p shoal.Pool) string {
			if p.Limits.MaxTimeLimit == 0 {
				return "infinite"
			}
			return elapsed(time.Duration(p.Limits.MaxTimeLimit), true)
		}},
		'D': {title: "NODES", value: func(p shoal.Pool) string { return strconv.Itoa(p.Size.Max) }},
		't': {title: "STATE", value: func(p shoal.Pool) string {
			for _, m := range machines {
				if m.Pool == p.Name && m.State == shoal.MachineReady {
					return "mix"
				}
			}
			return "idle~" // as a node that sleeps and is started when it is needed
		}},
		'c': {title: "CPUS", value: func(p shoal.Pool) string { return strconv.Itoa(max(1, int(p.Machine.CPUs/1000))) }},
		'm': {title: "MEMORY", value: func(p shoal.Pool) string { return strconv.FormatInt(int64(p.Machine.Memory>>20), 10) }},
		'G': {title: "GRES", value: func(p shoal.Pool) string {
			if p.Machine.GPUs == 0 {
				return "(null)"
			}
			return fmt.Sprintf("gpu:%d", p.Machine.GPUs)
		}},
		'N': {title: "NODELIST", value: func(p shoal.Pool) string {
			var names []string
			for _, m := range machines {
				if m.Pool == p.Name {
					names = append(names, string(m.ID))
				}
			}
			return strings.Join(names, ",")
		}},
	}
}

// showPartitions is `scontrol show partition`.
func (c *command) showPartitions(ctx context.Context, names []string, oneLine bool) error {
	to, err := c.Connect()
	if err != nil {
		return err
	}
	pools, err := to.Pools(ctx)
	if err != nil {
		return err
	}
	shown := 0
	for _, p := range pools {
		if !p.Has(shoal.UseBatch) || !matches(words(names...), string(p.Name)) {
			continue
		}
		shown++
		limit := "UNLIMITED"
		if p.Limits.MaxTimeLimit > 0 {
			limit = elapsed(time.Duration(p.Limits.MaxTimeLimit), false)
		}
		usual := "NONE"
		if p.Limits.DefaultTimeLimit > 0 {
			usual = elapsed(time.Duration(p.Limits.DefaultTimeLimit), false)
		}
		cpus := max(1, int(p.Machine.CPUs/1000))
		c.record([]string{"PartitionName=" + string(p.Name), "AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL",
			fmt.Sprintf("DefaultTime=%s MaxTime=%s MaxNodes=%d MinNodes=0", usual, limit, p.Size.Max),
			fmt.Sprintf("State=UP TotalCPUs=%d TotalNodes=%d", cpus*p.Size.Max, p.Size.Max),
			fmt.Sprintf("MaxCPUsPerNode=%d MaxMemPerNode=%d", cpus, p.Machine.Memory>>20)}, oneLine)
	}
	if shown == 0 && len(names) > 0 {
		return shoal.Errorf(shoal.KindNotFound, "Partition %s not found", strings.Join(names, ","))
	}
	return nil
}

// showNodes is `scontrol show node`.
func (c *command) showNodes(ctx context.Context, names []string, oneLine bool) error {
	to, err := c.Connect()
	if err != nil {
		return err
	}
	machines, err := to.Machines(ctx, client.MachineQuery{})
	if err != nil {
		return err
	}
	shown := 0
	for _, m := range machines {
		if !m.Alive() || !matches(words(names...), string(m.ID)) {
			continue
		}
		shown++
		state := "IDLE"
		switch {
		case m.State != shoal.MachineReady:
			state = "DOWN"
		case !m.Accepts():
			state = "IDLE+DRAIN"
		}
		gres := "(null)"
		if m.Resources.GPUs > 0 {
			gres = fmt.Sprintf("gpu:%d", m.Resources.GPUs)
		}
		c.record([]string{fmt.Sprintf("NodeName=%s Arch=x86_64", m.ID), fmt.Sprintf("CPUTot=%d Gres=%s", max(1, int(m.Resources.CPUs/1000)), gres),
			fmt.Sprintf("NodeAddr=%s NodeHostName=%s", m.ID, m.ID), fmt.Sprintf("RealMemory=%d", m.Resources.Memory>>20),
			fmt.Sprintf("State=%s", state), fmt.Sprintf("Partitions=%s", m.Pool)}, oneLine)
	}
	if shown == 0 && len(names) > 0 {
		return shoal.Errorf(shoal.KindNotFound, "Node %s not found", strings.Join(names, ","))
	}
	return nil
}
