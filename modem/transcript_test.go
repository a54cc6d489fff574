package modem

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// A transcript is what a module says in one connection of its own client: connecting,
// one subscription, publishes, and what comes by itself.
type transcript struct {
	name string
	// answers are replies by the beginning of the command, in place of those of the
	// dialect. In them, # is the command's message identifier, ¦ a place between two
	// lines where an announcement may come, and \x01 where the payload is taken.
	answers map[string]string
	publish []holdfast.Message // the one message of all tests if nil
	says    string             // after that

	login string   // words of the error with which connecting ends; "": it connects
	err   string   // words of the error of each publish; "": they are acknowledged
	got   []string // the messages that come down: topic, a space, payload
	lost  int      // messages that could not be read
	ends  string   // words of what has ended the session; "": it lives
	heard []string // commands, or beginnings of them, that must have been given
}

// The ways in which a line gives its bytes: how many of b come at once.
var pieces = []struct {
	name string
	cut  func(b []byte) int
}{
	{"as it comes", func(b []byte) int { return len(b) }},
	{"byte by byte", func([]byte) int { return 1 }},
	{"CR and LF apart", func(b []byte) int {
		if i := strings.IndexByte(string(b), '\r'); i >= 0 {
			return i + 1
		}
		return len(b)
	}},
	{"in threes", func(b []byte) int { return min(3, len(b)) }},
	{"in elevens", func(b []byte) int { return min(11, len(b)) }},
}

// What a module says between any two lines, with the way of the same place.
var announcements = []string{"", "\r\n+CEREG: 1\r\n", "\r\nRING\r\n\r\n+CGREG: 2,1\r\n", "\n^MODE: 17,17\r\n", "\r\n+CPIN: READY\r\n"}

// pieceLine gives the bytes of a wire in pieces, at about the pace of 115,200 baud.
type pieceLine struct {
	net.Conn
	cut  func(b []byte) int
	rest []byte
}

func (l *pieceLine) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		b := make([]byte, 4096)
		n, err := l.Conn.Read(b)
		if err != nil {
			return 0, err
		}
		l.rest = b[:n]
	}
	n := copy(p, l.rest[:min(l.cut(l.rest), len(p))])
	l.rest = l.rest[n:]
	time.Sleep(time.Duration(n) * 87 * time.Microsecond)
	return n, nil
}

// tell makes f say text in reply to commands that begin so, which is written as in a
// transcript.
func (f *fake) tell(beginning, text, announcement string) {
	f.tellInTurn(beginning, []string{text}, announcement)
}

// tellInTurn is tell with one text after the other; the last one stays.
func (f *fake) tellInTurn(beginning string, texts []string, announcement string) {
	f.onFunc(beginning, func(cmd string) string {
		id := ""
		if strings.Contains(cmd, ",") {
			id = field(cmd, 1)
		}
		text := texts[0]
		if len(texts) > 1 {
			texts = texts[1:]
		}
		return strings.NewReplacer("#", id, "¦", announcement, "\x01", takesPayload).Replace(text)
	})
}

// playTranscripts plays each of them in every way in which a line may give it.
func playTranscripts(t *testing.T, dialect string, answers map[string]string, all []transcript) {
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for i, way := range pieces {
				f := registered(t)
				for _, table := range []map[string]string{answers, c.answers} {
					for beginning, text := range table {
						f.tell(beginning, text, announcements[i])
					}
				}
				f.wrap = func(host net.Conn) io.ReadWriteCloser { return &pieceLine{Conn: host, cut: way.cut} }
				withModem(t, f, Options{Dialect: dialect, Mode: "mqtt"}, func(t *testing.T, m *Modem) {
					if err := c.play(f, m, announcements[i]); err != nil {
						t.Errorf("%s, with %q between the lines: %v", way.name, announcements[i], err)
					}
				})
			}
		})
	}
}

func (c *transcript) play(f *fake, m *Modem, announcement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var box mailbox
	s, err := m.Connect(ctx, login, box.receive)
	if c.login != "" {
		if err == nil {
			s.Close()
		}
		return expectWords("the login", err, c.login)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Subscribe(ctx, "cmd/#", 1); err != nil {
		return err
	}
	publish := c.publish
	if publish == nil {
		publish = []holdfast.Message{{Topic: "a/b", Payload: []byte("21.5"), QoS: 1}}
	}
	var o outcomes
	for i := range publish {
		o.publish(s, &publish[i])
	}
	time.Sleep(10 * time.Second)
	if c.says != "" {
		f.say(strings.ReplaceAll(c.says, "¦", announcement))
	}
	time.Sleep(10 * time.Second)
	for _, err := range o.get() {
		if err := expectWords("a publish", err, c.err); err != nil {
			return err
		}
	}
	var got []string
	for _, msg := range box.get() {
		got = append(got, msg.Topic+" "+string(msg.Payload))
	}
	if !slices.Equal(got, c.got) {
		return fmt.Errorf("%q came down, want %q", got, c.got)
	}
	if n := m.Status().Counters.Unreadable; n != uint64(c.lost) {
		return fmt.Errorf("%d messages could not be read, want %d", n, c.lost)
	}
	for _, command := range c.heard {
		if len(f.heard(command)) == 0 {
			return fmt.Errorf("%q was not given", command)
		}
	}
	synctest.Wait()
	return expectWords("the session", s.Err(), c.ends)
}

// expectWords compares an error with words of it, "" for none.
func expectWords(what string, err error, words string) error {
	switch {
	case err == nil && words == "", err != nil && words != "" && strings.Contains(err.Error(), words):
		return nil
	case words == "":
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: got %v, want %q", what, err, words)
}
