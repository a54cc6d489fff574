package modem

import (
	"context"
	"strings"

	"holdfast/modem/at"
)

// identify reads who the module is. Firmwares leave out some of the commands,
// so each value has several, and none is needed.
func (m *Modem) identify(ctx context.Context, e *at.Engine) error {
	for _, q := range []struct {
		commands []string
		valid    func(string) bool
		store    func(s *Status, f Fact)
	}{
		{[]string{"AT+CGMM", "ATI"}, isText, func(s *Status, f Fact) { s.Model = f }},
		{[]string{"AT+CGMR"}, isText, func(s *Status, f Fact) { s.Firmware = f }},
		{[]string{"AT+CGSN=1", "AT+CGSN"}, digits(14, 16), func(s *Status, f Fact) { s.IMEI = f }},
	} {
		if err := m.readFact(ctx, e, q.commands, q.valid, q.store); err != nil {
			return err
		}
	}
	return nil
}

// identifySIM reads who the SIM is; it must be unlocked.
func (m *Modem) identifySIM(ctx context.Context, e *at.Engine) error {
	if err := m.readICCID(ctx, e); err != nil {
		return err
	}
	return m.readFact(ctx, e, []string{"AT+CIMI"}, digits(14, 15), func(s *Status, f Fact) { s.IMSI = f })
}

// readICCID reads the number of the SIM card.
func (m *Modem) readICCID(ctx context.Context, e *at.Engine) error {
	return m.readFact(ctx, e, []string{"AT+ECICCID", "AT+ICCID", "AT+CCID", "AT+QCCID", "AT+CICCID"}, isICCID,
		func(s *Status, f Fact) { s.ICCID = f })
}

// readFact asks until one of the commands gives a valid value.
func (m *Modem) readFact(ctx context.Context, e *at.Engine, commands []string, valid func(string) bool, store func(*Status, Fact)) error {
	var prefixes []string // one may be answered by the name of another: AT+CICCID by +ICCID
	for _, text := range commands {
		if name, _, _ := strings.Cut(strings.TrimPrefix(text, "AT"), "="); strings.HasPrefix(name, "+") {
			prefixes = append(prefixes, name)
		}
	}
	for _, text := range commands {
		r, err := m.wish(ctx, e, at.Command{Text: text, Bare: true, Prefixes: prefixes})
		if err != nil {
			return err
		}
		for _, line := range r.Lines {
			a := at.Args(line)
			if len(a) == 0 {
				continue
			}
			if v := strings.TrimSpace(a[0]); valid(v) {
				m.learn(func(s *Status) { store(s, fact(v)) })
				return nil
			}
		}
	}
	return nil
}

func isText(s string) bool { return s != "" && len(s) <= 128 }

func digits(least, most int) func(string) bool {
	return func(s string) bool {
		for i := range len(s) {
			if s[i] < '0' || s[i] > '9' {
				return false
			}
		}
		return len(s) >= least && len(s) <= most
	}
}

// isICCID accepts 18 to 20 digits; some operators have letters in the account
// number, and some firmwares pad with F.
func isICCID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) >= 18 && len(s) <= 20
}
