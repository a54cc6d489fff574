package modem

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// locked is a module whose SIM asks for its PIN and answers so to it.
func locked(t *testing.T, answer string) *fake {
	f := registered(t)
	f.on("AT+CPIN?", "\r\n+CPIN: SIM PIN\r\n"+ok)
	f.on("AT+CPINR", "\r\nERROR\r\n") // it does not tell what is left
	f.on("AT+CPIN=", answer)
	return f
}

// entries runs a gateway's life of an hour and counts how often it enters the PIN.
func entries(t *testing.T, file, pin string, f *fake) (n int, problem string) {
	withModem(t, f, Options{PIN: pin, MemoryFile: file}, func(t *testing.T, m *Modem) {
		time.Sleep(time.Hour)
		n, problem = len(f.heard("AT+CPIN=")), m.Status().Problem
	})
	return n, problem
}

func TestAWrongPINIsNotEnteredAgainAfterARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "modem", "lte.json")
	const wrong = "\r\n+CME ERROR: 16\r\n"
	if n, _ := entries(t, file, "1234", locked(t, wrong)); n != 1 {
		t.Fatalf("entered %d times", n)
	}
	if n, problem := entries(t, file, "1234", locked(t, wrong)); n != 0 || !strings.Contains(problem, "refused this PIN before") {
		t.Errorf("after a restart it was entered %d times; the problem is %q", n, problem)
	}
	if n, _ := entries(t, file, "4711", locked(t, wrong)); n != 1 {
		t.Errorf("a corrected PIN was entered %d times", n)
	}
	other := locked(t, wrong)
	other.on("AT+ECICCID", "\r\n+ECICCID: 89860000000000000002\r\n"+ok)
	if n, _ := entries(t, file, "4711", other); n != 1 {
		t.Errorf("into another SIM it was entered %d times", n)
	}
	raw, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(raw), "1234") || strings.Contains(string(raw), "4711") {
		t.Errorf("the file is %s, %v", raw, err)
	}
}

// A crash after the PIN was sent leaves an attempt of which nobody knows.
func TestAPINOfUnknownFateIsEnteredTwiceAtMost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lte.json")
	for life, want := range []int{1, 1, 0, 0} {
		n, problem := entries(t, file, "1234", locked(t, ""))
		if n != want {
			t.Errorf("in life %d it was entered %d times; the problem is %q", life, n, problem)
		}
	}
	// All attempts are there, so none of them was used up.
	full := locked(t, "")
	full.on("AT+CPINR", "\r\n+CPINR: SIM PIN,3,3\r\n"+ok)
	if n, _ := entries(t, file, "1234", full); n != 1 {
		t.Errorf("with three attempts left it was entered %d times", n)
	}
}

func TestAGoodPINLeavesNothingBehind(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lte.json")
	for range 4 {
		f := locked(t, ok)
		f.sequence("AT+CPIN?", "\r\n+CPIN: SIM PIN\r\n"+ok, "\r\n+CPIN: READY\r\n"+ok, "\r\n+CPIN: READY\r\n"+ok)
		f.on("AT+CPIN?", "\r\n+CPIN: READY\r\n"+ok)
		f.sequence("AT+CPIN?", "\r\n+CPIN: SIM PIN\r\n"+ok)
		withModem(t, f, Options{PIN: "1234", MemoryFile: file}, func(t *testing.T, m *Modem) {
			up(t, m)
			if n := len(f.heard("AT+CPIN=")); n != 1 {
				t.Errorf("entered %d times", n)
			}
		})
	}
	if r, err := os.ReadFile(file); err != nil || strings.Contains(string(r), "mark") {
		t.Errorf("the file is %s, %v", r, err)
	}
}

func TestAnUnreadableMemoryIsSetAside(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lte.json")
	if err := os.WriteFile(file, []byte(`{"pins":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, _ := entries(t, file, "1234", locked(t, "\r\n+CME ERROR: 16\r\n")); n != 1 {
		t.Errorf("entered %d times", n)
	}
	if _, err := os.Stat(file + ".unreadable"); err != nil {
		t.Error(err)
	}
}

// On a disk that cannot be written nobody would know after a restart.
func TestAPINThatCannotBeWrittenDownIsNotEntered(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(blocked, "lte.json")
	if n, problem := entries(t, file, "1234", locked(t, ok)); n != 0 || !strings.Contains(problem, "written down") {
		t.Errorf("entered %d times, the problem is %q", n, problem)
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte(`{"pins":{"8986":{"mark":"ab","refused":true,"entered":1}}}`))
	f.Add([]byte(`{"pins":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseMemory(raw)
		if err != nil {
			return
		}
		m := &memory{data: r, log: slog.New(slog.DiscardHandler)}
		if err := m.keep("1", "1234", enteredPIN{Refused: true}); err != nil || !m.entered("1", "1234").Refused {
			t.Errorf("it is not remembered: %v", err)
		}
	})
}
