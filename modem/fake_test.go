package modem

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

const ok = "\r\nOK\r\n"

// fake is a module that answers from a table. It follows no state of its own:
// each test says what the module says.
type fake struct {
	t *testing.T

	mu       sync.Mutex
	conn     net.Conn
	answers  map[string]func(cmd string) string // by the beginning of the command
	commands []string
	opens    int
	wrap     func(host net.Conn) io.ReadWriteCloser // if not nil, around each opening
	dead     bool
}

// registered is a module that is up and takes everything.
func registered(t *testing.T) *fake {
	f := &fake{t: t, answers: map[string]func(string) string{}}
	for cmd, reply := range map[string]string{
		"AT":                ok,
		"AT+CFUN?":          "\r\n+CFUN: 1\r\n" + ok,
		"AT+CGMM":           "\r\nEC618-X\r\n" + ok,
		"AT+CGMR":           "\r\n+CGMR: \"V1.2\"\r\n" + ok,
		"AT+CGSN=1":         "\r\n+CGSN: \"867000000000001\"\r\n" + ok,
		"AT+ECICCID":        "\r\n+ECICCID: 89860000000000000001\r\n" + ok,
		"AT+CIMI":           "\r\n460000000000001\r\n" + ok,
		"AT+CPIN?":          "\r\n+CPIN: READY\r\n" + ok,
		"AT+CGDCONT?":       "\r\n+CGDCONT: 1,\"IPV4V6\",\"internet\",\"\",0,0\r\n" + ok,
		"AT+CEREG?":         "\r\n+CEREG: 2,1,\"1A2B\",\"01\",7\r\n" + ok,
		"AT+CGATT?":         "\r\n+CGATT: 1\r\n" + ok,
		"AT+CGPADDR=1":      "\r\n+CGPADDR: 1,\"10.1.2.3\"\r\n" + ok,
		"AT+COPS?":          "\r\n+COPS: 0,0,\"TESTNET\",7\r\n" + ok,
		"AT+CSQ":            "\r\n+CSQ: 20,99\r\n" + ok,
		"AT+QIOPEN=?":       "\r\nERROR\r\n",
		"AT+ECSOCR=?":       "\r\nERROR\r\n",
		"AT+QMTOPEN=?":      "\r\nERROR\r\n",
		"AT+CMQTTCONNECT=?": "\r\nERROR\r\n",
		"AT+CMQTTACCQ=?":    "\r\nERROR\r\n",
		"AT+CMQTTSTART=?":   "\r\nERROR\r\n",
		"AT+MQTTCFG=?":      "\r\nERROR\r\n",
		"AT+ECMTCFG=?":      "\r\n+ECMTCFG:\r\n" + ok,
		"AT+ECMTCONN?":      "\r\n+ECMTCONN:0,4\r\n" + ok,
		"AT+ECMTDISC":       "\r\n+CME ERROR: 3\r\n",
		"AT+ECMTCLOSE":      "\r\n+CME ERROR: 3\r\n",
		"AT+ECMTOPEN":       ok + "\r\n+ECMTOPEN: 0,0\r\n",
		"AT+ECMTCONN=0":     ok + "\r\n+ECMTCONN: 0,0,0\r\n",
	} {
		f.on(cmd, reply)
	}
	f.onFunc("AT+ECMTPUB", func(cmd string) string {
		return ok + "\r\n+ECMTPUB: 0," + field(cmd, 1) + ",0\r\n"
	})
	f.onFunc("AT+ECMTSUB", func(cmd string) string {
		return ok + "\r\n+ECMTSUB: 0," + field(cmd, 1) + ",0,1\r\n"
	})
	f.onFunc("AT+ECMTUNS", func(cmd string) string {
		return ok + "\r\n+ECMTUNS: 0," + field(cmd, 1) + ",0\r\n"
	})
	return f
}

// field is the n-th comma-separated argument of a command.
func field(cmd string, n int) string {
	_, args, _ := strings.Cut(cmd, "=")
	parts := strings.Split(args, ",")
	return parts[n]
}

// on sets what is said to commands that begin so; the longest beginning wins.
func (f *fake) on(beginning, reply string) {
	f.onFunc(beginning, func(string) string { return reply })
}

func (f *fake) onFunc(beginning string, reply func(cmd string) string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[beginning] = reply
}

// once answers the next such command only, then as before.
func (f *fake) once(beginning, reply string) { f.sequence(beginning, reply) }

// sequence gives one reply after the other, then answers as before.
func (f *fake) sequence(beginning string, replies ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.answers[beginning]
	f.answers[beginning] = func(cmd string) string {
		if len(replies) == 0 {
			if before == nil {
				return ok
			}
			return before(cmd)
		}
		r := replies[0]
		replies = replies[1:]
		return r
	}
}

func (f *fake) open(context.Context) (io.ReadWriteCloser, error) {
	host, module := net.Pipe()
	f.mu.Lock()
	f.conn = module
	f.opens++
	f.mu.Unlock()
	go f.serve(module)
	if f.wrap != nil {
		return f.wrap(host), nil
	}
	return host, nil
}

func (f *fake) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		cmd, err := r.ReadString('\r')
		if err != nil {
			conn.Close()
			return
		}
		cmd = strings.Trim(cmd, "\r\x1b\x1a")
		f.mu.Lock()
		f.commands = append(f.commands, cmd)
		var best string
		reply := func(string) string { return ok }
		for beginning, a := range f.answers {
			if strings.HasPrefix(cmd, beginning) && len(beginning) > len(best) && (beginning != "AT" || cmd == "AT") {
				best, reply = beginning, a
			}
		}
		dead := f.dead
		f.mu.Unlock()
		if cmd == "" || dead {
			continue
		}
		before, after, takes := strings.Cut(reply(cmd), takesPayload)
		if _, err := io.WriteString(conn, before); before != "" && err != nil {
			return
		}
		if !takes {
			continue
		}
		payload := make([]byte, payloadLength(cmd))
		if _, err := io.ReadFull(r, payload); err != nil {
			conn.Close()
			return
		}
		f.mu.Lock()
		f.commands = append(f.commands, "> "+string(payload))
		f.mu.Unlock()
		if _, err := io.WriteString(conn, after); after != "" && err != nil {
			return
		}
	}
}

// takesPayload stands in a reply where the module takes the payload, as long as the
// command says. heard has it behind "> ".
const takesPayload = "\x00payload\x00"

func payloadLength(cmd string) int {
	at := 1
	if strings.HasPrefix(cmd, "AT+QMTPUBEX") {
		at = 5
	}
	n, err := strconv.Atoi(field(cmd, at))
	if err != nil {
		panic(cmd)
	}
	return n
}

// say makes the module say something by itself.
func (f *fake) say(text string) {
	f.t.Helper()
	f.mu.Lock()
	conn := f.conn
	f.mu.Unlock()
	if _, err := io.WriteString(conn, text); err != nil {
		f.t.Errorf("the host does not read: %v", err)
	}
	synctest.Wait()
}

// heard are the commands that begin so.
func (f *fake) heard(beginning string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.commands), func(s string) bool { return !strings.HasPrefix(s, beginning) })
}

// die makes the module answer nothing at all.
func (f *fake) die() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
}

func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands = nil
}

// withModem runs test with a modem on the fake in a bubble with a fake clock.
// Goroutines that outlive Run fail the test.
func withModem(t *testing.T, f *fake, o Options, test func(t *testing.T, m *Modem)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		if o.Name == "" {
			o.Name = "lte"
		}
		o.Open = f.open
		m, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		test(t, m)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		synctest.Wait()
	})
}

var login = Login{Host: "broker.example", Port: 1883, ClientID: "gw1", Username: "u", Password: "p", KeepAlive: time.Minute, CleanSession: true}

func nobody(*holdfast.Message, bool, func()) {}

// connected makes a session that the test must end or Close.
func connected(t *testing.T, m *Modem, receive func(*holdfast.Message, bool, func())) *Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s, err := m.Connect(ctx, login, receive)
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	return s
}

// up waits until the modem is registered.
func up(t *testing.T, m *Modem) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if _, err := m.waitUp(ctx); err != nil {
		t.Fatal(err)
	}
}

// outcomes gathers the ends of publishes.
type outcomes struct {
	mu  sync.Mutex
	all []error
}

func (o *outcomes) publish(s *Session, msg *holdfast.Message) {
	o.mu.Lock()
	i := len(o.all)
	o.all = append(o.all, errPending)
	o.mu.Unlock()
	s.Publish(msg, false, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.all[i] != errPending {
			err = fmt.Errorf("done was called twice: %v, %v", o.all[i], err)
		}
		o.all[i] = err
	})
}

var errPending = fmt.Errorf("done was not called")

func (o *outcomes) get() []error {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.all)
}

func text(s string) *holdfast.Message {
	return &holdfast.Message{Topic: "t", Payload: []byte(s), QoS: 1}
}
