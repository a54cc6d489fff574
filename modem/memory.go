package modem

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// memory is what a modem must know after a restart. It is one small file that
// is written seldom: when a PIN is entered, and when it has been answered; when the
// speed of the line has changed; and every hour in which something was carried.
//
// A crash leaves the file as it was before or after a write, never between: it
// is written beside, synced and renamed.
type memory struct {
	path string // "" forgets at the end of the process
	log  *slog.Logger

	mu   sync.Mutex
	data remembered
}

// remembered is the file.
type remembered struct {
	// PINs are the PINs that were entered and not (yet) found good, by ICCID.
	PINs map[string]enteredPIN `json:"pins,omitempty"`
	// Baud is the rate at which the module was found when the configuration
	// said Configured.
	Baud       int `json:"baud,omitempty"`
	Configured int `json:"configured,omitempty"`
	// Traffic is what the modem has carried.
	Traffic trafficRecord `json:"traffic"`
}

// enteredPIN is what came of entering one PIN into one SIM.
type enteredPIN struct {
	// Mark tells this PIN from another one. It is no protection: a PIN has so
	// few digits that anyone who has the file can find it. The file is as
	// secret as the configuration.
	Mark string `json:"mark"`
	// Refused is set when the SIM has refused it: it is never entered again.
	Refused bool `json:"refused,omitempty"`
	// Entered counts the times of which nobody knows what came of them: the
	// process or the module ended in between.
	Entered int `json:"entered,omitempty"`
}

const (
	maxMemory = 64 << 10
	maxPINs   = 64
)

// recall reads the file. One that cannot be read is set aside: the gateway
// starts, and the SIM's own count of attempts protects it.
func recall(path string, log *slog.Logger) *memory {
	m := &memory{path: path, log: log}
	if path == "" {
		return m
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m
	}
	if err == nil {
		m.data, err = parseMemory(raw)
	}
	if err != nil {
		aside := path + ".unreadable"
		log.Warn("what the modem remembered cannot be read; it is set aside", "file", aside, "error", err)
		_ = os.Rename(path, aside)
	}
	return m
}

func parseMemory(raw []byte) (remembered, error) {
	var r remembered
	if len(raw) > maxMemory {
		return r, fmt.Errorf("it has %d bytes, which is too much", len(raw))
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return remembered{}, err
	}
	r.Traffic = r.Traffic.sane()
	return r, nil
}

// pinMark is what a PIN is remembered by.
func pinMark(iccid, pin string) string {
	h := hmac.New(sha256.New, []byte("holdfast sim pin "+iccid))
	h.Write([]byte(pin))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// entered is what is known of this PIN and this SIM; zero if nothing.
func (m *memory) entered(iccid, pin string) enteredPIN {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.data.PINs[iccid]; e.Mark == pinMark(iccid, pin) {
		return e
	}
	return enteredPIN{}
}

// keep writes what is known of this PIN down. When it returns nil, that is on
// the disk (or there is none).
func (m *memory) keep(iccid, pin string, e enteredPIN) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.Mark = pinMark(iccid, pin)
	if m.data.PINs == nil {
		m.data.PINs = make(map[string]enteredPIN)
	}
	if _, again := m.data.PINs[iccid]; !again && len(m.data.PINs) >= maxPINs {
		for other := range m.data.PINs { // any: nobody has changed so many SIMs
			delete(m.data.PINs, other)
			break
		}
	}
	m.data.PINs[iccid] = e
	return m.writeLocked()
}

// forget drops what is known of a SIM whose PIN is good.
func (m *memory) forget(iccid string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.data.PINs[iccid]; !known {
		return nil
	}
	delete(m.data.PINs, iccid)
	return m.writeLocked()
}

// baud is the rate at which to begin.
func (m *memory) baud(configured int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data.Configured == configured && slices.Contains(rates, m.data.Baud) {
		return m.data.Baud
	}
	return configured
}

func (m *memory) keepBaud(configured, found int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data.Configured == configured && m.data.Baud == found || m.data.Baud == 0 && found == configured {
		return nil
	}
	m.data.Configured, m.data.Baud = configured, found
	return m.writeLocked()
}

func (m *memory) traffic() trafficRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.data.Traffic
	t.Months = slices.Clone(t.Months) // the meter counts in its own
	return t
}

func (m *memory) keepTraffic(t trafficRecord) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data.Traffic = t
	return m.writeLocked()
}

func (m *memory) writeLocked() error {
	if m.path == "" {
		return nil
	}
	raw, err := json.Marshal(m.data)
	if err != nil {
		return err
	}
	folder := filepath.Dir(m.path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	giveAway(folder, filepath.Dir(folder))
	beside := m.path + ".new"
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	giveAway(beside, folder)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(beside, m.path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(m.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// giveAway makes a file belong to the owner of the folder that it is in: a tool
// that root runs must not leave what the gateway's user cannot read.
func giveAway(name, folder string) {
	if os.Geteuid() != 0 {
		return
	}
	if info, err := os.Stat(folder); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			_ = os.Chown(name, int(st.Uid), int(st.Gid))
		}
	}
}
