package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
	"holdfast/bridge"
	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
	"holdfast/edge"
	"holdfast/modem"
)

func screenOf(st gateway.Status, before *gateway.Status) string {
	var out bytes.Buffer
	printStatus(&out, st, before)
	return out.String()
}

func TestTheScreenHasBarsAgesAndRates(t *testing.T) {
	st := gateway.Status{
		ID: "gw", Uptime: 7210, Memory: 40 << 20, Listeners: []string{"127.0.0.1:1883"},
		Broker: edge.Stats{Received: 120, Sent: 20},
		Bridges: []gateway.BridgeStatus{{
			Name: "cloud", Status: bridge.Status{State: bridge.Connected, Since: time.Now(), RTT: 85 * time.Millisecond},
			Queued: 100, QueuedBytes: 256 << 20, QueueLimit: 1 << 30, Oldest: time.Now().Add(-4 * time.Minute),
		}},
		Modems: []modem.Status{{Name: "lte", State: modem.StateReady, Signal: modem.Signal{CSQ: 20, DBm: -73, At: time.Now()}}},
	}
	st.Storage = gateway.StorageStatus{Mode: "disk", Space: "ok", Disk: &gateway.DiskStatus{Free: 20 << 30, Size: 30 << 30, Written: 240 << 20}}
	before := st
	before.Uptime, before.Broker = 7200, edge.Stats{Received: 20}
	before.Bridges = []gateway.BridgeStatus{{Name: "cloud", Queued: 150}}
	text := screenOf(st, &before)
	for _, want := range []string{
		"gateway gw, up 2h0m10s, listens on 127.0.0.1:1883, memory 40 MiB\n",
		"        10.0 messages/s in, 2.0 messages/s out\n",
		"        round trip 85ms\n",
		"        queue [#####---------------] 25 % of 1024 MiB, the oldest waits for 4m0s, empty in 20s\n",
		"        signal: |||| -73 dBm (0s ago)\n",
		"        disk: 20 GiB free of 30 GiB; written 240 MiB since the start, 2876 MiB a day\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "WARNING") {
		t.Errorf("all is well, and it warns:\n%s", text)
	}
	if plain := screenOf(st, nil); strings.Contains(plain, "messages/s") {
		t.Errorf("rates out of nothing:\n%s", plain)
	}
	painted := coloured(text)
	if !strings.Contains(painted, "\x1b[1mbridge\x1b[0m  cloud: \x1b[32mconnected\x1b[0m since") {
		t.Errorf("%q", painted)
	}
	if got := coloured("WARNING the disk\n"); !strings.HasPrefix(got, "\x1b[1m\x1b[31mWARNING") || !strings.HasSuffix(got, "\x1b[0m\n") {
		t.Errorf("%q", got)
	}
}

// Each warning names what is wrong and says what to do.
func TestWarningsSayWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(st *gateway.Status)
		want  []string
	}{
		"disk full": {func(st *gateway.Status) { st.Storage.Space = "short" }, []string{"the disk is full but for its reserve", "free some space"}},
		"read-only": {func(st *gateway.Status) {
			st.Storage.Mode, st.Storage.Reason = "memory", "read-only file system; mend that"
		}, []string{"not acknowledged", "mend that"}},
		"link": {func(st *gateway.Status) {
			st.Bridges = []gateway.BridgeStatus{{Name: "cloud", Queued: 7, Status: bridge.Status{State: bridge.Backoff, LastError: "the broker refuses the login: check username"}}}
		}, []string{"bridge cloud has no connection, 7 messages wait on disk", "check username"}},
		"queue": {func(st *gateway.Status) {
			st.Bridges = []gateway.BridgeStatus{{Name: "cloud", QueuedBytes: 900, QueueLimit: 1000}}
		}, []string{"nearly full", "holdfast queue export cloud"}},
		"quarantine": {func(st *gateway.Status) {
			st.Bridges = []gateway.BridgeStatus{{
				Name: "cloud", Status: bridge.Status{State: bridge.Connected, LastError: "message refused: the broker says not authorized (0x87)"},
				Routes: map[string]holdfast.Counts{"r": {Accepted: 1, Quarantined: map[string]uint64{"refused": 1}}},
			}}
		}, []string{"bridge cloud: 1 message is put aside", "not authorized (0x87)", "lets this user publish", "holdfast queue quarantine ls cloud"}},
		"QoS 2": {func(st *gateway.Status) {
			st.Bridges = []gateway.BridgeStatus{{Name: "cloud", Status: bridge.Status{State: bridge.Connected, Unsure: 3}}}
		}, []string{"bridge cloud: 3 messages of QoS 2 may have come twice", "let the broker keep sessions"}},
		"modem": {func(st *gateway.Status) {
			st.Modems = []modem.Status{{Name: "lte", State: modem.StateDown, Problem: "no SIM is inserted: insert one"}}
		}, []string{"modem lte is not ready", "insert one"}},
		"one identifier": {func(st *gateway.Status) { st.Broker.Rival = "pump" }, []string{`two devices use the client identifier "pump"`, "give each"}},
		"clock":          {func(st *gateway.Status) { st.Clock.Source = "modem" }, []string{"clock is behind", "NTP"}},
	} {
		var st gateway.Status
		c.spoil(&st)
		list := warnings(st)
		if len(list) != 1 {
			t.Errorf("%s: %q", name, list)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(list[0], want) {
				t.Errorf("%s: %q is missing in %q", name, want, list[0])
			}
		}
		if text := screenOf(st, nil); !strings.Contains(text, "\nWARNING "+list[0]+"\n") {
			t.Errorf("%s: not on the screen\n%s", name, text)
		}
	}
}

func TestWatchGoesOnOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err := watchStatus(ctx, &out, gateway.Status{ID: "gw", Uptime: 1}, time.Second, func() (gateway.Status, error) {
			switch n++; n {
			case 2:
				return gateway.Status{}, errors.New("no gateway answers")
			case 4:
				cancel()
			}
			return gateway.Status{ID: "gw", Uptime: float64(n + 1), Broker: edge.Stats{Received: uint64(5 * n)}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		text := out.String()
		if strings.Count(text, "gateway gw") != 3 || !strings.Contains(text, "WARNING no gateway answers") || strings.Count(text, "5.0 messages/s in") != 2 {
			t.Errorf("%s", text)
		}
	})
}

// A gateway that did not start since its address is taken: status names it.
func TestStatusSaysWhyNobodyAnswers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := configs.Default()
	cfg.Console.Address = ""
	cfg.Listeners[0].Address = ln.Addr().String()
	nobody := errors.New("no gateway answers")
	if err := explainAbsence(cfg, nobody); !errors.Is(err, nobody) || !strings.Contains(err.Error(), "Another program has "+ln.Addr().String()) {
		t.Error(err)
	}
	cfg.Listeners = nil
	if err := explainAbsence(cfg, nobody); !strings.Contains(err.Error(), "journalctl -u holdfast") {
		t.Error(err)
	}
}
