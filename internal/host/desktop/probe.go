package desktop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
)

// Probe asks xrdp, as a client does first, whether it would go on with TLS. While nobody answers it tries again, until
// ctx ends.
func Probe(ctx context.Context, port int) error {
	for wait := 5 * time.Millisecond; ; wait = min(wait*3/2, 200*time.Millisecond) {
		err := Ask(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return shoal.Errorf(shoal.KindUnavailable, "nobody can get a desktop: xrdp does not answer at port %d: %w", port, err).
				WithHint("see /var/log/xrdp/xrdp.log and /var/log/xrdp-sesman.log in the machine")
		case <-time.After(wait):
		}
	}
}

// askTime bounds one question.
const askTime = 5 * time.Second

// Ask makes one connection. The question is an X.224 connection request without a cookie, asking for TLS alone
// ([MS-RDPBCGR] 2.2.1.1); the answer is a confirmation that chooses it.
func Ask(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	question := []byte{3, 0, 0, 19, 14, 0xe0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 1, 0, 0, 0}
	if _, err := c.Write(question); err != nil {
		return err
	}
	answer := make([]byte, 19)
	if _, err := io.ReadFull(c, answer); err != nil {
		return fmt.Errorf("it said nothing: %w", err)
	}
	if answer[0] != 3 || answer[5] != 0xd0 || !bytes.Equal(answer[11:], []byte{2, answer[12], 8, 0, 1, 0, 0, 0}) {
		return errors.New("it does not speak TLS")
	}
	return nil
}
