package sim

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// mosquitto starts a real broker on a free port of the loopback.
func mosquitto(t *testing.T, config string) (port string) {
	t.Helper()
	bin, err := exec.LookPath("mosquitto")
	if err != nil {
		bin = "/usr/sbin/mosquitto"
		if _, err = os.Stat(bin); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("mosquitto is not installed")
			}
			t.Skip("mosquitto is not installed")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\npersistence false\nuser %s\n%s\n", port, "root", config)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-c", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(t, "mosquitto listens", func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return port
}

func TestARealBrokerTakesMessagesAndBringsThemBack(t *testing.T) {
	port := mosquitto(t, "allow_anonymous true")
	h := power(t, Options{ReconnectAfter: time.Millisecond}).setUp()
	h.ok(`AT+ECMTCFG="session",0,1`, `AT+ECMTCFG="keepalive",0,30`, `AT+ECMTOPEN=0,"127.0.0.1",`+port)
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"gw-1","",""`)
	h.urc("+ECMTCONN: 0,0,0")
	h.ok(`AT+ECMTSUB=0,1,"echo/#",2`)
	h.urc("+ECMTSUB: 0,1,0,1")
	for qos := range 3 {
		h.ok(fmt.Sprintf(`AT+ECMTPUB=0,%d,%d,0,"echo/%d","n %d"`, 100+qos, qos, qos, qos))
		want := map[bool]bool{}
		for len(want) < 2 { // the result and the message, in any order
			h.until("\r\n+ECMT")
			switch kind := h.until("\r\n"); {
			case kind == fmt.Sprintf("PUB: 0,%d,0", 100+qos):
				want[true] = true
			case len(kind) > 5 && kind[:5] == "RECV:":
				want[false] = true
			default:
				t.Fatalf("got %q", kind)
			}
		}
	}
	// A packet identifier of 0 is more than a broker can bear.
	h.ok(`AT+ECMTPUB=0,0,1,0,"t","x"`)
	h.urc("+ECMTSTAT: 0,1")
	h.urc("+ECMTCONN: 0,0,0")
	h.ok(`AT+ECMTPUB=0,7,1,0,"echo/again","the subscription is gone"`)
	h.urc("+ECMTPUB: 0,7,0")
	h.ok("AT+ECMTDISC=0")
	h.urc("+ECMTDISC: 0,0")
	if s := h.m.Stats(); s.Received != 3 || s.PublishAcked != 4 {
		t.Fatalf("%+v", s)
	}
}

func TestARealBrokerRefusesAnUnknownUserWith5(t *testing.T) {
	port := mosquitto(t, "allow_anonymous false")
	h := power(t, Options{ReconnectAfter: time.Hour}).setUp()
	h.ok(`AT+ECMTOPEN=0,"127.0.0.1",` + port)
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"gw-1","nobody","nothing"`)
	h.urc("+ECMTCONN: 0,0,5")
	h.urc("+ECMTSTAT: 0,1")
}

func TestHundredMessagesPassALineOf115200InTheTimeThatTheLineTakes(t *testing.T) {
	port := mosquitto(t, "allow_anonymous true")
	h := power(t, Options{Baud: 115200}).setUp()
	h.ok(`AT+ECMTOPEN=0,"127.0.0.1",` + port)
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"gw-1","",""`)
	h.urc("+ECMTCONN: 0,0,0")
	before, start := h.m.Stats(), time.Now()
	for id := 1; id <= 100; id++ {
		h.write(fmt.Sprintf("AT+ECMTPUB=0,%d,1,0,\"t\",\"%064d\"\r", id, id))
		h.until("\r\nOK\r\n")
		h.until(fmt.Sprintf("\r\n+ECMTPUB: 0,%d,0\r\n", id))
	}
	s := h.m.Stats()
	bytes := s.UARTIn + s.UARTOut - before.UARTIn - before.UARTOut
	if d, least := time.Since(start), time.Duration(bytes)*10*time.Second/115200; d < least*9/10 {
		t.Fatalf("%d bytes took %v, the line needs %v", bytes, d, least)
	}
}
