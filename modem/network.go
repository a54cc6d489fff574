package modem

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"holdfast/modem/at"
)

// setAPN defines PDP context 1 if its APN or user differs from what is wanted
// (3GPP TS 27.007 10.1.1, 10.1.31). The radio is off meanwhile: LTE attaches
// with the context of that moment.
func (m *Modem) setAPN(ctx context.Context, e *at.Engine) error {
	if m.o.APN == "" || m.carries() { // with what there is something is reached
		return nil
	}
	r, err := m.wish(ctx, e, at.Command{Text: "AT+CGDCONT?", Prefixes: []string{"+CGDCONT"}})
	if err != nil {
		return err
	}
	same := false
	for _, line := range r.Lines {
		if a := at.Args(line); len(a) >= 3 && a[0] == "1" && a[2] == m.o.APN {
			same = true
		}
	}
	if same && m.o.APNUser != "" {
		if same, err = m.sameAuth(ctx, e); err != nil {
			return err
		}
	}
	if same {
		return nil
	}
	m.log.Info("setting the APN", "apn", m.o.APN, "user", m.o.APNUser)
	radio := m.o.Timing.Radio
	if _, err := m.wish(ctx, e, at.Command{Text: "AT+CFUN=0", Timeout: radio}); err != nil {
		return err
	}
	_, err = m.ask(ctx, e, at.Command{Text: fmt.Sprintf(`AT+CGDCONT=1,"IPV4V6","%s"`, m.o.APN)})
	if at.IsRejection(err) {
		_, err = m.ask(ctx, e, at.Command{Text: fmt.Sprintf(`AT+CGDCONT=1,"IP","%s"`, m.o.APN)})
	}
	if err != nil {
		err = fmt.Errorf("the module did not take the APN %q: %w", m.o.APN, err)
	} else if m.o.APNUser != "" {
		err = m.setAuth(ctx, e)
	}
	_, onErr := m.wish(ctx, e, at.Command{Text: "AT+CFUN=1", Timeout: radio})
	if err = errors.Join(err, onErr); err != nil {
		return err
	}
	return m.unlock(ctx, e) // CFUN=0 may have switched the SIM off
}

// The values of <auth_prot> in +CGAUTH (3GPP TS 27.007 10.1.31).
const (
	authPAP  = 1
	authCHAP = 2
)

func (m *Modem) authProtocols() []int {
	switch m.o.APNAuth {
	case "pap":
		return []int{authPAP}
	case "chap":
		return []int{authCHAP}
	}
	return []int{authCHAP, authPAP}
}

// sameAuth reports whether the module has the login of the access point. A
// firmware that does not read the password back is believed after this process
// has set it: the one in the module may be that of an older configuration.
func (m *Modem) sameAuth(ctx context.Context, e *at.Engine) (bool, error) {
	r, err := m.wish(ctx, e, at.Command{Text: "AT+CGAUTH?", Prefixes: []string{"+CGAUTH"}})
	if err != nil {
		return false, err
	}
	for _, line := range r.Lines {
		a := at.Args(line)
		if len(a) < 3 || a[0] != "1" || a[2] != m.o.APNUser {
			continue
		}
		protocol, _ := strconv.Atoi(a[1])
		password := len(a) >= 4 && a[3] == m.o.APNPassword || len(a) < 4 && m.authSet
		return password && slices.Contains(m.authProtocols(), protocol), nil
	}
	return false, nil
}

// setAuth gives the module the login of the access point. A firmware without
// the command goes on: its operator may not ask.
func (m *Modem) setAuth(ctx context.Context, e *at.Engine) error {
	var err error
	for _, protocol := range m.authProtocols() {
		_, err = m.ask(ctx, e, at.Command{Text: fmt.Sprintf(`AT+CGAUTH=1,%d,"%s","%s"`, protocol, m.o.APNUser, m.o.APNPassword)})
		if !at.IsRejection(err) {
			break
		}
	}
	switch {
	case err == nil:
		m.authSet = true
	case at.IsRejection(err):
		m.log.Warn("the module does not take apn_user and apn_password; if there is no data connection, try another apn_auth", "error", err)
		err = nil
	}
	return err
}

// register waits until the module is registered (3GPP TS 27.007 10.1.22). It
// asks, since a module that is registered already sends no URC.
func (m *Modem) register(ctx context.Context, e *at.Engine) error {
	m.setState(StateRegistering)
	// 2 tells the cell with it, which not all firmwares know.
	if _, err := m.ask(ctx, e, at.Command{Text: "AT+CEREG=2"}); at.IsRejection(err) {
		if _, err := m.wish(ctx, e, at.Command{Text: "AT+CEREG=1"}); err != nil {
			return err
		}
	} else if err != nil && !(errors.Is(err, at.ErrTimeout) && !errors.Is(err, at.ErrUnsynced)) {
		return err
	}
	end := time.Now().Add(m.o.Timing.Registration)
	for n := 0; ; n++ {
		stat, err := m.askRegistration(ctx, e)
		if err != nil {
			return err
		}
		if stat == 1 || stat == 5 {
			return nil
		}
		if n%5 == 0 {
			if err := m.askSignal(ctx, e); err != nil {
				return err
			}
		}
		why := registrationError(stat, m.Status().Signal)
		if time.Now().After(end) {
			return why
		}
		m.mu.Lock()
		m.problem = why
		changed := m.changed
		l := m.link
		m.mu.Unlock()
		select {
		case <-changed: // a +CEREG came
		case <-time.After(m.o.Timing.RegPoll):
		case err := <-l.ending:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-e.Done():
			return e.Err()
		}
	}
}

// askRegistration returns <stat>, 4 (unknown) if the module does not say. One
// that does not know CEREG is asked as those before LTE were.
func (m *Modem) askRegistration(ctx context.Context, e *at.Engine) (int, error) {
	stat := 4
	for _, name := range []string{"+CEREG", "+CGREG", "+CREG"} {
		r, err := m.wish(ctx, e, at.Command{Text: "AT" + name + "?", Prefixes: []string{name}, Match: isRegReply})
		if err != nil {
			return 4, err
		}
		if a := at.Args(r.First()); len(a) >= 2 {
			stat, _ = strconv.Atoi(a[1])
			break
		}
	}
	m.learn(func(s *Status) { s.Registration = fact(registrationWords(stat)) })
	return stat, nil
}

// isRegReply tells the answer to AT+CEREG? (n first, then stat) from the URC
// of the same name (stat first, then a tracking area code in quotes).
func isRegReply(line string) bool {
	f := at.Fields(line)
	return len(f) >= 2 && !f[1].Quoted && len(f[1].Text) >= 1 && len(f[1].Text) <= 2
}

// attach waits for the packet domain and reads what is worth knowing.
func (m *Modem) attach(ctx context.Context, e *at.Engine) error {
	r, err := m.wish(ctx, e, at.Command{Text: "AT+CGATT?", Prefixes: []string{"+CGATT"}})
	if err != nil {
		return err
	}
	if a := at.Args(r.First()); len(a) > 0 && a[0] == "0" {
		if _, err := m.wish(ctx, e, at.Command{Text: "AT+CGATT=1", Timeout: m.o.Timing.Radio}); err != nil {
			return err
		}
	}
	for _, ask := range []func(context.Context, *at.Engine) error{m.askIP, m.askOperator, m.askSignal, m.askClock, m.askCounter} {
		if err := ask(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (m *Modem) askIP(ctx context.Context, e *at.Engine) error {
	r, err := m.wish(ctx, e, at.Command{Text: "AT+CGPADDR=1", Prefixes: []string{"+CGPADDR"}})
	if a := at.Args(r.First()); len(a) >= 2 {
		m.learn(func(s *Status) { s.IP = fact(a[1]) })
	}
	return err
}

func (m *Modem) askOperator(ctx context.Context, e *at.Engine) error {
	r, err := m.wish(ctx, e, at.Command{Text: "AT+COPS?", Prefixes: []string{"+COPS"}, Timeout: m.o.Timing.Operator})
	if a := at.Args(r.First()); len(a) >= 3 {
		m.learn(func(s *Status) { s.Operator = fact(a[2]) })
	}
	return err
}

func (m *Modem) askSignal(ctx context.Context, e *at.Engine) error {
	r, err := m.wish(ctx, e, at.Command{Text: "AT+CSQ", Prefixes: []string{"+CSQ"}})
	if err != nil {
		return err
	}
	a := at.Args(r.First())
	if len(a) == 0 {
		return nil
	}
	sig, ok := signal(a[0])
	if !ok {
		return nil
	}
	if r, err = m.wish(ctx, e, at.Command{Text: "AT+CESQ", Prefixes: []string{"+CESQ"}}); err != nil {
		return err
	}
	sig.lte(at.Args(r.First()))
	m.learn(func(s *Status) { s.Signal = sig })
	return nil
}

// poll is the slow look at a module that is up; n counts the looks.
func (m *Modem) poll(ctx context.Context, e *at.Engine, n int) (stat int, err error) {
	if err := m.askSignal(ctx, e); err != nil {
		return 4, err
	}
	if stat, err = m.askRegistration(ctx, e); err != nil {
		return stat, err
	}
	if n%10 == 0 {
		if err := m.askIP(ctx, e); err != nil {
			return stat, err
		}
		if err := m.askOperator(ctx, e); err != nil {
			return stat, err
		}
		if err := m.askCounter(ctx, e); err != nil {
			return stat, err
		}
		err = m.askClock(ctx, e)
	}
	return stat, err
}
