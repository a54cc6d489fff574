package modem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// withECSO makes the fake a module with sockets of AT+ECSO, whose sends are answered
// with what ack says.
func withECSO(f *fake, ack func(number string) string) {
	f.on("AT+ECSOCR=?", "\r\n+ECSOCR: (STREAM)\r\n"+ok)
	f.on("AT+ECSOCR=STREAM", "\r\n0\r\n"+ok)
	f.on("AT+ECSOCO=", ok+"\r\n+ECSOCO: 0\r\n")
	f.onFunc("AT+ECSOSD=", func(cmd string) string {
		return fmt.Sprintf("\r\n0,%s\r\n%s%s", field(cmd, 1), ok, ack(field(cmd, 4)))
	})
}

// A lost line is no reason to send less for good, and a module that does not
// acknowledge any more is waited for once.
func TestSendsGoOnWithoutTheirAcknowledgements(t *testing.T) {
	f := registered(t)
	sends := 0
	withECSO(f, func(number string) string {
		if sends++; sends > 2 {
			return ""
		}
		return "\r\n+ECSOSTR: 0," + number + ",1\r\n"
	})
	withModem(t, f, Options{Mode: "socket"}, func(t *testing.T, m *Modem) {
		c, err := m.DialContext(t.Context(), "tcp", "192.0.2.1:1883")
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		for range 40 {
			if _, err := c.Write([]byte(strings.Repeat("x", ecsoSend))); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		synctest.Wait()
		if n := len(f.heard("AT+ECSOSD=")); n < 40 {
			t.Errorf("%d sends, want 40", n)
		}
		if d := time.Since(begun); d > 2*socketAckWait {
			t.Errorf("they took %v", d)
		}
	})
}

func TestASubscriptionThatWaitsForItsTurnEndsWithItsContext(t *testing.T) {
	c := newCMQTT(nil, nil)
	if err := c.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.subscribe(ctx, nil, 0, "a/#", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
