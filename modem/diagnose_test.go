package modem

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The fault of each layer is named there, and nothing above it is looked at.
func TestDiagnoseNamesTheLayer(t *testing.T) {
	for _, c := range []struct {
		name, cmd, reply string
		layer, words     string
	}{
		{"all well", "", "", "", ""},
		{"silence", "AT", "", "at", "not one byte"},
		{"a GPS", "AT", "$GPGGA,1\r\n", "at", "NMEA"},
		{"no SIM", "AT+CPIN?", "\r\n+CME ERROR: 10\r\n", "sim", "no SIM"},
		{"PIN", "AT+CPIN?", "\r\n+CPIN: SIM PIN\r\n" + ok, "sim", "set pin"},
		{"PUK", "AT+CPIN?", "\r\n+CPIN: SIM PUK\r\n" + ok, "sim", "PUK"},
		{"no antenna", "AT+CSQ", "\r\n+CSQ: 99,99\r\n" + ok, "signal", "antenna"},
		{"weak", "AT+CSQ", "\r\n+CSQ: 2,99\r\n" + ok, "signal", "too weak"},
		{"denied", "AT+CEREG?", "\r\n+CEREG: 2,3\r\n" + ok, "registration", "denied"},
		{"no address", "AT+CGPADDR=1", "\r\n+CGPADDR: 1\r\n" + ok, "data", "apn"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := registered(t)
			if c.cmd != "" {
				f.on(c.cmd, c.reply)
			}
			synctest.Test(t, func(t *testing.T) {
				f.t = t
				m, err := New(Options{Name: "lte", Open: f.open})
				if err != nil {
					t.Fatal(err)
				}
				var all []Check
				went := false
				err = m.Diagnose(context.Background(), func(c Check) { all = append(all, c) }, func(ctx context.Context) {
					went = true
					s, err := m.Connect(ctx, login, nobody)
					if err != nil {
						t.Fatal(err)
					}
					s.Close()
				})
				last := all[len(all)-1]
				if c.layer == "" {
					if err != nil || !went || len(all) != 6 || last.Found != "address 10.1.2.3, operator TESTNET" {
						t.Errorf("%v: %+v", err, all)
					}
				} else if went || last.Layer != c.layer || last.Err == nil || !strings.Contains(last.Err.Error(), c.words) || !errors.Is(err, last.Err) {
					t.Errorf("it ends at %s with %v", last.Layer, last.Err)
				}
				for _, c := range all[:len(all)-1] {
					if c.Err != nil {
						t.Errorf("%s failed as well: %v", c.Layer, c.Err)
					}
				}
				if n := m.Status().Counters.Resets; n != 0 {
					t.Errorf("%d resets", n)
				}
				time.Sleep(time.Second)
				synctest.Wait()
			})
		})
	}
}

func TestAskRunsOneCommand(t *testing.T) {
	f := registered(t)
	f.on("AT+CCLK?", "\r\n+CCLK: \"26/11/21,13:00:00+00\"\r\n"+ok)
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		m, err := New(Options{Name: "lte", Open: f.open})
		if err != nil {
			t.Fatal(err)
		}
		lines, err := m.Ask(context.Background(), "AT+CCLK?")
		if err != nil || strings.Join(lines, "|") != `+CCLK: "26/11/21,13:00:00+00"|OK` {
			t.Errorf("got %q, %v", lines, err)
		}
		f.on("AT+X", "\r\nERROR\r\n")
		if _, err := m.Ask(context.Background(), "AT+X=1"); err == nil {
			t.Error("an ERROR is none")
		}
		synctest.Wait()
	})
}
