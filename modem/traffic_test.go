package modem

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"holdfast"
)

func month(t *testing.T, m *meter, name string) MonthBytes {
	t.Helper()
	for _, got := range m.traffic().Months {
		if got.Month == name {
			return got
		}
	}
	t.Fatalf("there is no %s in %v", name, m.traffic().Months)
	return MonthBytes{}
}

func day(s string) time.Time {
	d, err := time.Parse("2006-01-02", s)
	if err != nil {
		panic(err)
	}
	return d
}

func TestTheModelAddsHeadersAndAcknowledgements(t *testing.T) {
	m := newMeter(trafficRecord{})
	m.turn(day("2026-11-30"), true)
	m.sent(3000)        // three segments
	m.received(1)       // one
	m.published(100, 1) // a PUBLISH, a PUBACK, its acknowledgement
	if got, want := month(t, m, "2026-11"), (MonthBytes{"2026-11", 3000 + 120 + 40 + 140 + 40, 120 + 41 + 44}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	m.turn(day("2026-12-01"), true)
	m.opened()
	if got, want := month(t, m, "2026-12"), (MonthBytes{"2026-12", openOut, openIn}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestACounterTakesThePlaceOfTheModel(t *testing.T) {
	m := newMeter(trafficRecord{})
	m.turn(day("2026-11-30"), true)
	read := func(out, in uint64) { m.read(counterReading{FromModule, out, in}) }
	want := func(out, in uint64) {
		t.Helper()
		if got := month(t, m, "2026-11"); got.Out != out || got.In != in {
			t.Errorf("got %d out, %d in; want %d, %d", got.Out, got.In, out, in)
		}
	}
	m.estimate(100, 100)
	read(5000, 5000) // of an earlier time: nothing can be said of the 100
	want(100, 100)
	m.estimate(1000, 0)
	want(1100, 100)
	read(5700, 5300)
	want(800, 400)
	m.estimate(50, 60)
	read(10, 20) // the module has restarted
	want(850, 460)
	read(15, 30)
	want(855, 470)
	if s := m.traffic().Source; s != FromModule {
		t.Errorf("it comes from %s", s)
	}
	// An interface that was made anew has carried what it tells.
	m.read(counterReading{FromInterface, 100, 100})
	m.read(counterReading{FromInterface, 7, 8})
	want(862, 478)
}

func TestMonthsAreKept(t *testing.T) {
	m := newMeter(trafficRecord{})
	for i := range 20 {
		m.turn(day("2025-01-15").AddDate(0, i, 0), true)
		m.estimate(uint64(i), 0)
	}
	got := m.traffic().Months
	if len(got) != maxMonths || got[0] != (MonthBytes{"2026-08", 19, 0}) || got[12].Month != "2025-08" {
		t.Errorf("got %v", got)
	}
	// A board that was without power begins in 1970, and then learns the time.
	m.turn(day("1970-01-01"), false)
	m.estimate(1, 0)
	m.turn(day("2026-08-31"), true)
	m.estimate(1, 0)
	if got := m.traffic().Months; got[0] != (MonthBytes{"2026-08", 21, 0}) || got[12].Month != "2025-08" {
		t.Errorf("got %v", got)
	}
}

// What was carried survives restarts, and is written once an hour.
func TestTrafficIsKeptOverRestartsAndWrittenSeldom(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lte.json")
	life := func(messages int) Traffic {
		var after Traffic
		withModem(t, registered(t), Options{MemoryFile: file}, func(t *testing.T, m *Modem) {
			s := connected(t, m, nobody)
			before, _ := os.Stat(file) // of an earlier life
			for range messages {
				ended := make(chan error, 1)
				s.Publish(&holdfast.Message{Topic: "t", Payload: []byte("x"), QoS: 1}, false, func(err error) { ended <- err })
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(50 * time.Minute)
			// A new month, as in the first life, is written at once.
			if now, _ := os.Stat(file); before != nil && !before.ModTime().Equal(now.ModTime()) {
				t.Error("it was written within the hour")
			}
			s.Close()
			after = m.Status().Traffic
		})
		return after
	}
	first := life(100)
	if first.Source != FromModel || len(first.Months) != 1 || first.Months[0].Out < 100*80 {
		t.Fatalf("after the first life: %+v", first)
	}
	second := life(0)
	if second.Months[0].Out <= first.Months[0].Out || second.Months[0].Month != first.Months[0].Month {
		t.Errorf("after the second: %+v, after the first %+v", second, first)
	}
	// Without a message: a connection, and a ping a minute.
	if out := second.Months[0].Out - first.Months[0].Out; out < 40*80 || out > 60*90+1000 {
		t.Errorf("50 idle minutes cost %d bytes", out)
	}
}

func TestTrafficOfAnInterfaceIsTheBoardsOwn(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "class/net/usb0/statistics")
	put := func(out, in int) {
		t.Helper()
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, n := range map[string]int{"tx_bytes": out, "rx_bytes": in} {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(strconv.Itoa(n)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	m, err := New(Options{Name: "lte", Port: "/dev/ttyNONE7", Interface: "usb0", Dial: overInterface(new(atomic.Pointer[error])).Dial, MemoryFile: filepath.Join(t.TempDir(), "m.json")})
	if err != nil {
		t.Fatal(err)
	}
	m.tree.sys = filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(folder))))
	m.readInterface() // it is not there yet
	put(1000, 2000)
	m.readInterface()
	put(1500, 2600)
	m.readInterface()
	tr := m.Status().Traffic
	if tr.Source != FromInterface || len(tr.Months) != 1 || tr.Months[0].Out != 500 || tr.Months[0].In != 600 {
		t.Errorf("got %+v", tr)
	}
}

func TestAQuectelModuleIsAskedForItsCounter(t *testing.T) {
	f := registered(t)
	f.on("AT+QMTOPEN=?", "\r\n+QMTOPEN: (0-5)\r\n"+ok)
	f.on("AT+ECMTCFG=?", "\r\nERROR\r\n")
	f.sequence("AT+QGDCNT?", "\r\n+QGDCNT: 1000,2000\r\n"+ok, "\r\n+QGDCNT: 1700,2900\r\n"+ok, "\r\nERROR\r\n")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		time.Sleep(time.Hour)
		tr := m.Status().Traffic
		if tr.Source != FromModule || len(tr.Months) != 1 || tr.Months[0].Out != 700 || tr.Months[0].In != 900 {
			t.Errorf("got %+v", tr)
		}
		if n := len(f.heard("AT+QGDCNT?")); n != 3 { // the third was refused
			t.Errorf("asked %d times", n)
		}
	})
	other := registered(t)
	withModem(t, other, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		time.Sleep(time.Hour)
		if n := len(other.heard("AT+QGDCNT?")); n != 0 {
			t.Errorf("firmware of another was asked %d times", n)
		}
	})
}

func TestTrafficThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	m := newMeter(trafficRecord{})
	m.turn(day("2026-11-30"), true)
	m.estimate(1, 1)
	failed := errors.New("read-only file system")
	if err := m.save(true, func(trafficRecord) error { return failed }); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	written := 0
	if err := m.save(true, func(trafficRecord) error { written++; return nil }); err != nil || written != 1 {
		t.Errorf("%v, written %d times", err, written)
	}
	if err := m.save(true, func(trafficRecord) error { written++; return nil }); err != nil || written != 1 {
		t.Errorf("%v, written %d times", err, written)
	}
}

func TestMonthsOfADamagedFileAreDropped(t *testing.T) {
	r, err := parseMemory([]byte(`{"traffic":{"months":[{"month":"2026-13","out":1},{"month":"2026-10","out":2},{"month":"2026-11","out":3},{"month":"2026-10","out":4},{"month":"x"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Traffic.Months; !slices.Equal(got, []MonthBytes{{"2026-11", 3, 0}, {"2026-10", 2, 0}}) && !slices.Equal(got, []MonthBytes{{"2026-11", 3, 0}, {"2026-10", 4, 0}}) {
		t.Errorf("got %v", got)
	}
}

// The file is written for other reasons too, at any moment.
func TestTheMeterSharesNoMonthsWithTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lte.json")
	if err := os.WriteFile(file, []byte(`{"traffic":{"months":[{"month":"2026-11","out":1,"in":1}]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	memory := recall(file, slog.New(slog.DiscardHandler))
	m := newMeter(memory.traffic())
	m.turn(day("2026-11-30"), true)
	m.estimate(100, 100)
	if got := memory.traffic().Months; got[0].Out != 1 {
		t.Errorf("without a save the file would have %+v", got)
	}
}

func TestAReadingBehindTheTurnOfTheMonthIsNotCountedTwice(t *testing.T) {
	m := newMeter(trafficRecord{})
	m.turn(day("2026-11-30"), true)
	m.read(counterReading{FromModule, 5000, 5000})
	m.estimate(1000, 100)
	m.turn(day("2026-12-01"), true)
	m.estimate(200, 20)
	m.read(counterReading{FromModule, 6500, 5090})
	if got := month(t, m, "2026-11"); got.Out != 1000 || got.In != 100 {
		t.Errorf("got %+v", got)
	}
	if got := month(t, m, "2026-12"); got.Out != 500 || got.In != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestACounterThatCannotBeIsNotBelieved(t *testing.T) {
	for line, want := range map[string]bool{
		"+QGDCNT: 1700,2900":                 true,
		"+QGDCNT: 18446744073709551615,2900": false,
		"+QGDCNT: 1700,18446744073709551615": false,
		"+QGDCNT: -1,2900":                   false,
		"+QGDCNT: 1700":                      false,
	} {
		if _, _, ok := parseCounter(line); ok != want {
			t.Errorf("%s: %v", line, ok)
		}
	}
}
