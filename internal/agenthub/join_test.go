package agenthub_test

import (
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/sshwire"
	"github.com/shoal-pool/shoal/internal/store"
)

func TestJoin(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		key := signer(t)
		ask := api.AgentJoin{Machine: "m-1", Epoch: 1, Token: w.JoinToken("m-1", 1), HostKey: publicLine(key)}
		joined, err := w.Join(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		if told := strings.Join(w.svc.take(), ", "); told != "joined m-1 1" {
			t.Errorf("told %s", told)
		}
		if c, err := w.Machine(t.Context(), joined.Token); err != nil || c != m1() {
			t.Errorf("the token is that of %v, %v", c, err)
		}
		cert, _, _, _, err := ssh.ParseAuthorizedKey([]byte(joined.HostCertificate))
		if err != nil {
			t.Fatal(err)
		}
		if err := sshwire.KnownHost(w.ca.PublicKey(), "m-1")("", nil, cert); err != nil {
			t.Errorf("a gateway does not know the machine: %v", err)
		}
		if err := sshwire.KnownHost(w.ca.PublicKey(), "m-2")("", nil, cert); err == nil {
			t.Error("the certificate is good for another machine")
		}
		again, err := w.Join(t.Context(), ask)
		if err != nil || again.Token != joined.Token {
			t.Errorf("joining again gave %v, %v", again, err)
		}
		thief := ask
		thief.HostKey = publicLine(signer(t))
		_, err = w.Join(t.Context(), thief)
		wantKind(t, err, shoal.KindDenied)
	})
}

func TestJoinRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		good := api.AgentJoin{Machine: "m-1", Epoch: 1, Token: w.JoinToken("m-1", 1), HostKey: publicLine(signer(t))}
		short, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			t.Skip(err)
		}
		weak, err := ssh.NewPublicKey(&short.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			change func(*api.AgentJoin)
			kind   shoal.Kind
		}{
			"no token":          {func(j *api.AgentJoin) { j.Token = "" }, shoal.KindUnauthenticated},
			"another's token":   {func(j *api.AgentJoin) { j.Token = w.JoinToken("m-2", 1) }, shoal.KindUnauthenticated},
			"another start's":   {func(j *api.AgentJoin) { j.Token = w.JoinToken("m-1", 2) }, shoal.KindUnauthenticated},
			"a start to come":   {func(j *api.AgentJoin) { j.Epoch, j.Token = 2, w.JoinToken("m-1", 2) }, shoal.KindUnauthenticated},
			"nobody's":          {func(j *api.AgentJoin) { j.Machine, j.Token = "m-2", w.JoinToken("m-2", 1) }, shoal.KindUnauthenticated},
			"no key":            {func(j *api.AgentJoin) { j.HostKey = "" }, shoal.KindInvalid},
			"a key with option": {func(j *api.AgentJoin) { j.HostKey = "no-pty " + j.HostKey }, shoal.KindInvalid},
			"two keys":          {func(j *api.AgentJoin) { j.HostKey += j.HostKey }, shoal.KindInvalid},
			"a weak key":        {func(j *api.AgentJoin) { j.HostKey = string(ssh.MarshalAuthorizedKey(weak)) }, shoal.KindInvalid},
			"a huge key":        {func(j *api.AgentJoin) { j.HostKey += strings.Repeat("x", 1<<20) }, shoal.KindInvalid},
		} {
			j := good
			c.change(&j)
			if _, err := w.Join(t.Context(), j); shoal.KindOf(err) != c.kind {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, state := range []shoal.MachineState{shoal.MachineStopping, shoal.MachineStopped, shoal.MachineFailed, shoal.MachineGone} {
			w.machine(func(m *shoal.Machine) { m.State = state })
			_, err := w.Join(t.Context(), good)
			wantKind(t, err, shoal.KindConflict)
		}
		w.machine(func(m *shoal.Machine) { m.State, m.Wanted = shoal.MachineBooting, shoal.WantDelete })
		_, err = w.Join(t.Context(), good)
		wantKind(t, err, shoal.KindConflict)
		if told := w.svc.take(); told != nil {
			t.Errorf("told %v", told)
		}
	})
}

// TestMachineToken: a token is good for one start, and for one machine that exists.
func TestMachineToken(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		joined, err := w.Join(t.Context(), api.AgentJoin{Machine: "m-1", Epoch: 1, Token: w.JoinToken("m-1", 1), HostKey: publicLine(signer(t))})
		if err != nil {
			t.Fatal(err)
		}
		token := joined.Token
		parts := strings.Split(token, ".")
		for _, bad := range []string{"", ".", "..", parts[0], parts[2], parts[0] + ".1." + w.JoinToken("m-1", 1), parts[0] + ".2." + parts[2],
			"m-2.1." + parts[2], parts[0] + ".01." + parts[2], parts[0] + ".+1." + parts[2], token + "0", token[:len(token)-1], strings.Repeat("x", 1<<16)} {
			if _, err := w.Machine(t.Context(), bad); shoal.KindOf(err) != shoal.KindUnauthenticated {
				t.Errorf("%.40q: %v", bad, err)
			}
		}
		w.machine(func(m *shoal.Machine) { m.Epoch, m.HostKey = 2, "" })
		_, err = w.Machine(t.Context(), token)
		wantKind(t, err, shoal.KindUnauthenticated)
		wantKind(t, w.Stream(t.Context(), m1(), nil), shoal.KindUnauthenticated)
		w.machine(func(m *shoal.Machine) { m.Epoch = 1 })
		if _, err := w.Machine(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		w.machine(func(m *shoal.Machine) { m.State = shoal.MachineGone })
		_, err = w.Machine(t.Context(), token)
		wantKind(t, err, shoal.KindUnauthenticated)
		w.update(func(tx *store.Tx) error { return tx.Machines().Delete("m-1") })
		_, err = w.Machine(t.Context(), token)
		wantKind(t, err, shoal.KindUnauthenticated)
	})
}
