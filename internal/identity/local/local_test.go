package local_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity"
	"github.com/shoal-pool/shoal/internal/identity/identitytest"
	"github.com/shoal-pool/shoal/internal/identity/local"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

func open(t testing.TB, people []identitytest.Person) *local.Directory {
	t.Helper()
	db := storetest.Open(t)
	d := local.New(store.Credentials{DB: db})
	for _, p := range people {
		storetest.Update(t, db, func(tx *store.Tx) error { _, err := tx.Users().Put(p.User); return err })
		if p.Password == "" {
			continue
		}
		if err := d.SetPassword(context.Background(), p.Name, p.Password); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestSuite(t *testing.T) {
	identitytest.Run(t, func(t testing.TB, people []identitytest.Person) identity.Directory { return open(t, people) })
}

func one(keys ...string) []identitytest.Person {
	return []identitytest.Person{{User: shoal.User{Name: "alice", UID: 20001, Keys: keys}}}
}

func wantKind(t testing.TB, err error, kind shoal.Kind) {
	t.Helper()
	if err == nil || shoal.KindOf(err) != kind {
		t.Errorf("error %v, want one of kind %s", err, kind)
	}
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, one())
		ctx := t.Context()
		short, expires, err := d.IssueToken(ctx, "alice", time.Hour)
		if err != nil || time.Until(expires) > time.Hour || time.Until(expires) < 59*time.Minute {
			t.Fatalf("expires %v, %v", expires, err)
		}
		forever, never, err := d.IssueToken(ctx, "alice", 0)
		if err != nil || !never.IsZero() {
			t.Fatalf("expires %v, %v", never, err)
		}
		for _, token := range []string{short, forever} {
			if u, err := d.TokenUser(ctx, token); err != nil || u.Name != "alice" {
				t.Errorf("%+v, %v", u, err)
			}
		}
		for _, bad := range []string{"", "x", short + "0", strings.ToUpper(short), local.TokenHash(short)} {
			_, err := d.TokenUser(ctx, bad)
			wantKind(t, err, shoal.KindUnauthenticated)
		}
		time.Sleep(time.Hour + time.Second)
		_, err = d.TokenUser(ctx, short)
		wantKind(t, err, shoal.KindUnauthenticated)
		if _, err := d.TokenUser(ctx, forever); err != nil {
			t.Error(err)
		}
		_, _, err = d.IssueToken(ctx, "nobody", time.Hour)
		wantKind(t, err, shoal.KindNotFound)
		// Whoever knew the former password, or none, has no token any more.
		for _, change := range []func() error{func() error { return d.SetPassword(ctx, "alice", "another password") },
			func() error { return d.RemovePassword(ctx, "alice") }} {
			token, _, err := d.IssueToken(ctx, "alice", 0)
			if err == nil {
				err = change()
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.TokenUser(ctx, token)
			wantKind(t, err, shoal.KindUnauthenticated)
		}
	})
}

func TestTokenOfDisabledUser(t *testing.T) {
	db := storetest.Open(t)
	d := local.New(store.Credentials{DB: db})
	put := func(disabled bool) {
		storetest.Update(t, db, func(tx *store.Tx) error {
			_, err := tx.Users().Put(shoal.User{Name: "alice", Disabled: disabled})
			return err
		})
	}
	put(false)
	token, _, err := d.IssueToken(t.Context(), "alice", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	put(true)
	_, err = d.TokenUser(t.Context(), token)
	wantKind(t, err, shoal.KindUnauthenticated)
	_, _, err = d.IssueToken(t.Context(), "alice", time.Hour)
	wantKind(t, err, shoal.KindDenied)
}

func TestGroupsFromBothSides(t *testing.T) {
	db := storetest.Open(t)
	storetest.Update(t, db, func(tx *store.Tx) error {
		if _, err := tx.Users().Put(shoal.User{Name: "alice", Groups: []shoal.GroupName{"b", "a"}}); err != nil {
			return err
		}
		if _, err := tx.Groups().Put(shoal.Group{Name: "c", Members: []shoal.UserName{"alice"}}); err != nil {
			return err
		}
		_, err := tx.Groups().Put(shoal.Group{Name: "a", Members: []shoal.UserName{"alice", "bob"}})
		return err
	})
	u, ok := local.New(store.Credentials{DB: db}).User(t.Context(), "alice")
	if !ok || !slices.Equal(u.Groups, []shoal.GroupName{"a", "b", "c"}) {
		t.Errorf("%+v", u)
	}
}

func TestSetPassword(t *testing.T) {
	d := open(t, one())
	wantKind(t, d.SetPassword(t.Context(), "alice", "short"), shoal.KindInvalid)
	wantKind(t, d.SetPassword(t.Context(), "nobody", "long enough"), shoal.KindNotFound)
	if err := d.SetPassword(t.Context(), "alice", "long enough"); err != nil {
		t.Fatal(err)
	}
	if u, _ := d.User(t.Context(), "alice"); !u.HasPassword {
		t.Error("the user does not show that it has a password")
	}
	if err := d.RemovePassword(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, d.CheckPassword(t.Context(), "alice", "long enough", "x"), shoal.KindUnauthenticated)
}

// The waits double, by source and by account, end, and are forgotten.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, one())
		if err := d.SetPassword(t.Context(), "alice", "the right one"); err != nil {
			t.Fatal(err)
		}
		try := func(password, source string) error {
			return d.CheckPassword(t.Context(), "alice", password, source)
		}
		for range 4 {
			wantKind(t, try("wrong", "192.0.2.1:1"), shoal.KindUnauthenticated)
		}
		wantKind(t, try("the right one", "192.0.2.1:2"), shoal.KindExhausted)
		wantKind(t, try("the right one", "192.0.2.2:2"), shoal.KindExhausted) // the account
		time.Sleep(1100 * time.Millisecond)
		wantKind(t, try("wrong", "192.0.2.1:3"), shoal.KindUnauthenticated)
		time.Sleep(1100 * time.Millisecond)
		wantKind(t, try("the right one", "192.0.2.1:3"), shoal.KindExhausted) // now two seconds
		time.Sleep(time.Second)
		if err := try("the right one", "192.0.2.1:4"); err != nil {
			t.Errorf("after the wait: %v", err)
		}
		for range 3 {
			wantKind(t, try("wrong", "192.0.2.1:5"), shoal.KindUnauthenticated) // counted anew
		}
	})
}

// A hash of other parameters still counts, and is replaced at the next good check.
func TestRehash(t *testing.T) {
	db := storetest.Open(t)
	c := store.Credentials{DB: db}
	storetest.Update(t, db, func(tx *store.Tx) error { _, err := tx.Users().Put(shoal.User{Name: "alice"}); return err })
	d := local.New(c)
	made := local.HashWith(64, 1, 1, "an old password")
	if err := c.SetPasswordHash(t.Context(), "alice", made); err != nil {
		t.Fatal(err)
	}
	wantKind(t, d.CheckPassword(t.Context(), "alice", "wrong", "a"), shoal.KindUnauthenticated)
	if hash, _ := c.PasswordHash(t.Context(), "alice"); hash != made {
		t.Error("a wrong password replaced the hash")
	}
	if err := d.CheckPassword(t.Context(), "alice", "an old password", "b"); err != nil {
		t.Fatal(err)
	}
	hash, _ := c.PasswordHash(t.Context(), "alice")
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("the hash is still %q", hash)
	}
	if err := d.CheckPassword(t.Context(), "alice", "an old password", "b"); err != nil {
		t.Error(err)
	}
}

// sign makes an armored signature as ssh-keygen does.
func sign(t testing.TB, s ssh.Signer, algorithm, namespace, message string) string {
	t.Helper()
	sum := sha512.Sum512([]byte(message))
	signed := append([]byte("SSHSIG"), ssh.Marshal(struct{ N, R, H, S string }{namespace, "", "sha512", string(sum[:])})...)
	sig, err := s.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, signed, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	blob := append([]byte("SSHSIG"), ssh.Marshal(struct {
		V          uint32
		K          []byte
		N, R, H    string
		Signature_ []byte
	}{1, s.PublicKey().Marshal(), namespace, "", "sha512", ssh.Marshal(sig)})...)
	return "-----BEGIN SSH SIGNATURE-----\n" + base64.StdEncoding.EncodeToString(blob) + "\n-----END SSH SIGNATURE-----\n"
}

func signers(t testing.TB) map[string]ssh.Signer {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaSigner, _ := ssh.NewSignerFromKey(rsaKey)
	ecSigner, _ := ssh.NewSignerFromKey(ecKey)
	return map[string]ssh.Signer{
		ssh.KeyAlgoED25519: identitytest.Signer(t, 0), ssh.KeyAlgoECDSA256: ecSigner,
		ssh.KeyAlgoRSASHA256: rsaSigner, ssh.KeyAlgoRSASHA512: rsaSigner, ssh.KeyAlgoRSA: rsaSigner,
	}
}

func TestSignIn(t *testing.T) {
	for algorithm, s := range signers(t) {
		t.Run(algorithm, func(t *testing.T) {
			d := open(t, one(identitytest.Line(s)))
			challenge := d.Challenge(t.Context(), "alice")
			err := d.VerifySignature(t.Context(), "alice", challenge, sign(t, s, algorithm, local.Namespace, challenge))
			if algorithm == ssh.KeyAlgoRSA { // SHA-1
				wantKind(t, err, shoal.KindInvalid)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSignInRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, other := identitytest.Signer(t, 0), identitytest.Signer(t, 1)
		d := open(t, one(identitytest.Line(s)))
		ctx := t.Context()
		refused := func(what string, user shoal.UserName, challenge, signature string) {
			t.Helper()
			if err := d.VerifySignature(ctx, user, challenge, signature); shoal.KindOf(err) != shoal.KindUnauthenticated {
				t.Errorf("%s: %v", what, err)
			}
		}
		good := func(challenge string) string { return sign(t, s, ssh.KeyAlgoED25519, local.Namespace, challenge) }
		c := d.Challenge(ctx, "alice")
		refused("another key", "alice", c, sign(t, other, ssh.KeyAlgoED25519, local.Namespace, c))
		refused("another namespace", "alice", c, sign(t, s, ssh.KeyAlgoED25519, "file", c))
		refused("another text", "alice", c, good(c+" "))
		refused("another user", "bob", c, good(c))
		refused("another user's challenge", "alice", d.Challenge(ctx, "bob"), good(c))
		refused("a challenge of one's own", "alice", strings.Repeat("A", len(c)), good(strings.Repeat("A", len(c))))
		refused("no challenge", "alice", "", good(""))
		wantKind(t, d.VerifySignature(ctx, "alice", c, "nonsense"), shoal.KindInvalid)
		if err := d.VerifySignature(ctx, "alice", c, good(c)); err != nil {
			t.Errorf("the good one: %v", err)
		}
		refused("the same again", "alice", c, good(c))
		late := d.Challenge(ctx, "alice")
		time.Sleep(61 * time.Second)
		refused("too late", "alice", late, good(late))
	})
}

// What OpenSSH writes is what is read.
func TestOpenSSH(t *testing.T) {
	keygen := need.Program(t, "ssh-keygen")
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		dir := t.TempDir()
		key := filepath.Join(dir, "key")
		if out, err := exec.Command(keygen, "-q", "-t", kind, "-N", "", "-f", key).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		line, err := os.ReadFile(key + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		d := open(t, one(string(line)))
		challenge := d.Challenge(t.Context(), "alice")
		cmd := exec.Command(keygen, "-Y", "sign", "-n", local.Namespace, "-f", key)
		cmd.Stdin = strings.NewReader(challenge)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if err := d.VerifySignature(t.Context(), "alice", challenge, out.String()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestParseKey(t *testing.T) {
	line := identitytest.Line(identitytest.Signer(t, 0))
	if k, err := local.ParseKey(line + " a comment\n"); err != nil || k.Type() != ssh.KeyAlgoED25519 {
		t.Error(err)
	}
	for _, bad := range []string{"", "ssh-ed25519", "restrict " + line, line + "\n" + line, strings.Repeat("x", 1<<20)} {
		_, err := local.ParseKey(bad)
		wantKind(t, err, shoal.KindInvalid)
	}
}

func FuzzParseSignature(f *testing.F) {
	s := identitytest.Signer(f, 0)
	f.Add(sign(f, s, ssh.KeyAlgoED25519, local.Namespace, "x"))
	f.Add("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----")
	f.Fuzz(func(t *testing.T, armored string) {
		sig, err := local.ParseSignature(armored)
		if err != nil {
			if shoal.KindOf(err) != shoal.KindInvalid {
				t.Errorf("%v", err)
			}
			return
		}
		_ = sig.Verify([]byte("y")) // only that it does not panic
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(identitytest.Line(identitytest.Signer(f, 0)))
	f.Add(`command="x" ssh-rsa AAAA`)
	f.Fuzz(func(t *testing.T, line string) {
		if k, err := local.ParseKey(line); err == nil {
			if again, err := local.ParseKey(string(ssh.MarshalAuthorizedKey(k))); err != nil || !bytes.Equal(again.Marshal(), k.Marshal()) {
				t.Errorf("%q came back as %v, %v", line, again, err)
			}
		}
	})
}

func FuzzStoredHash(f *testing.F) {
	f.Add(local.HashWith(64, 1, 1, "x"))
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) { _ = local.Decode(s) }) // only that it does not panic
}

// TestBrowsers: a cookie's secret is no API token nor the other way round, and ends by itself, with the password
// and with the user.
func TestBrowsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, one())
		ctx := t.Context()
		open := func() string {
			secret, _, err := d.OpenBrowser(ctx, "alice", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			return secret
		}
		a, b := open(), open()
		token, _, err := d.IssueToken(ctx, "alice", 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.TokenUser(ctx, a)
		wantKind(t, err, shoal.KindUnauthenticated)
		_, err = d.BrowserUser(ctx, token)
		wantKind(t, err, shoal.KindUnauthenticated)
		if u, err := d.BrowserUser(ctx, a); err != nil || u.Name != "alice" {
			t.Fatalf("%+v, %v", u, err)
		}
		if err := d.CloseBrowser(ctx, a); err != nil {
			t.Fatal(err)
		}
		_, err = d.BrowserUser(ctx, a)
		wantKind(t, err, shoal.KindUnauthenticated)
		if _, err := d.BrowserUser(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := d.CloseBrowsers(ctx, "alice"); err != nil {
			t.Fatal(err)
		}
		_, err = d.BrowserUser(ctx, b)
		wantKind(t, err, shoal.KindUnauthenticated)
		if _, err := d.TokenUser(ctx, token); err != nil {
			t.Errorf("the API token: %v", err)
		}
		b = open()
		if err := d.SetPassword(ctx, "alice", "a new password"); err != nil {
			t.Fatal(err)
		}
		_, err = d.BrowserUser(ctx, b)
		wantKind(t, err, shoal.KindUnauthenticated)
		c := open()
		time.Sleep(time.Hour)
		_, err = d.BrowserUser(ctx, c)
		wantKind(t, err, shoal.KindUnauthenticated)
		_, _, err = d.OpenBrowser(ctx, "nobody", time.Hour)
		wantKind(t, err, shoal.KindNotFound)
	})
}

// TestTokensAreBounded: who signs in again and again does not fill the store; the oldest tokens make room.
func TestTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, one())
		ctx := t.Context()
		token, _, err := d.IssueToken(ctx, "alice", 0)
		if err != nil {
			t.Fatal(err)
		}
		var secrets []string
		for range 1005 {
			time.Sleep(time.Second)
			secret, _, err := d.OpenBrowser(ctx, "alice", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, secret)
		}
		for i, s := range secrets[:10] {
			if _, err := d.BrowserUser(ctx, s); (err == nil) != (i >= 5) {
				t.Errorf("%d: %v", i, err)
			}
		}
		if _, err := d.TokenUser(ctx, token); err != nil {
			t.Errorf("a token of another kind: %v", err)
		}
	})
}
