package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/internal/cli/doctor"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

func (p *program) doctorCommand() *cobra.Command {
	var data, listen, sshListen, httpsListen, gpuRoot string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host lacks to run a server, and the command that mends it",
		Long: `Look at this host and say, line by line, what is there and what a server would miss, with the command that
mends it. It changes nothing and needs no server. Exit code 1 if something that is needed is missing.`,
		Args: noArgs,
	}
	format := formatFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&data, "data", "", "the data `DIR` of the server to be (SHOAL_DATA; default "+p.DataDir+")")
	f.StringVar(&listen, "listen", "127.0.0.1:7420", "where its API is to listen")
	f.StringVar(&sshListen, "ssh-listen", "127.0.0.1:2222", "where its ssh gateway is to listen")
	f.StringVar(&httpsListen, "https-listen", "127.0.0.1:7443", "where browsers are to come in, or off")
	f.StringVar(&gpuRoot, "gpu-root", "", "where the GPUs' device nodes and driver lie, a `DIR` (/)")
	files(cmd, "data")
	files(cmd, "gpu-root")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, d := range []string{p.Getenv("SHOAL_DATA"), p.DataDir} {
			if data == "" {
				data = d
			}
		}
		host := doctor.Here(data, listen, sshListen)
		host.GPURoot, host.HTTPSListen = gpuRoot, httpsListen
		found := host.Look(cmd.Context())
		if *format != show.Table {
			if err := show.Data(p.Stdout, *format, found); err != nil {
				return err
			}
		} else if err := p.diagnosis(found); err != nil {
			return err
		}
		for _, f := range found {
			if f.State == doctor.Missing {
				return exitCode(1)
			}
		}
		return nil
	}
	return cmd
}

func (p *program) diagnosis(found []doctor.Finding) error {
	var rows [][]string
	count := map[doctor.State]int{}
	for _, f := range found {
		count[f.State]++
		rows = append(rows, []string{string(f.State), f.Check, f.Detail})
		if f.Mend != "" {
			rows = append(rows, []string{" ", " ", "→ " + f.Mend})
		}
	}
	if err := term.Table(p.Stdout, []string{"STATE", "CHECK", "FOUND"}, rows); err != nil {
		return err
	}
	switch {
	case count[doctor.Missing] > 0:
		fmt.Fprintf(p.Stdout, "\n%s missing; a server would not work here.\n", are(count[doctor.Missing], "thing"))
	case count[doctor.Warning] > 0:
		fmt.Fprintf(p.Stdout, "\nNothing is missing; %s worth a look.\n", are(count[doctor.Warning], "thing"))
	default:
		fmt.Fprintln(p.Stdout, "\nNothing is missing.")
	}
	if install := doctor.Install(found); install != "" {
		fmt.Fprintf(p.Stdout, "All packages at once: %s\n", install)
	}
	return nil
}

// are counts things with their verb: "1 thing is", "2 things are".
func are(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " is"
	}
	return fmt.Sprintf("%d %ss are", n, noun)
}
