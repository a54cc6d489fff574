package modem

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"holdfast/modem/at"
)

// qmtOpens are the results of QMTOPEN.
var qmtOpens = map[string]error{
	"-1": errors.New("it could not be opened"),
	"1":  errors.New("the module did not like the address"),
	"2":  errors.New("the module's client is in use"),
	"3":  errors.New("there is no data connection"),
	"4":  errNotFound,
	"5":  errors.New("the far side did not answer or refused"),
}

func (c *qmt) connect(ctx context.Context, s *Session) error {
	for try := 0; ; try++ {
		code, err := c.open(ctx, s)
		switch {
		case err != nil:
			return err
		case code == "0":
			return c.login(ctx, s)
		case code == "2" && try == 0:
			// In use, although prepare has closed it: it takes a moment.
			c.leave(ctx)
			if !sleep(ctx, s.m.o.Timing.SelfRepair/5) {
				return ctx.Err()
			}
			continue
		}
		err = errors.New("result " + code)
		if why, ok := qmtOpens[code]; ok {
			err = fmt.Errorf("%w (%s)", why, code)
		}
		return errDial(s.login.Host, s.login.Port, err)
	}
}

func (c *qmt) open(ctx context.Context, s *Session) (code string, err error) {
	w := c.e.Expect(isLine("+QMTOPEN", "0"))
	defer w.Stop()
	_, err = c.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+QMTOPEN=0,"%s",%d`, s.login.Host, s.login.Port)})
	if at.IsRejection(err) {
		return "", fmt.Errorf("the module does not open a connection to %s:%d; check the APN, and that the SIM has data left (%w)",
			s.login.Host, s.login.Port, err)
	}
	if err != nil {
		return "", err
	}
	l, err := s.wait(ctx, w, s.m.o.Timing.Open)
	if errors.Is(err, at.ErrTimeout) {
		return "", errSilentOpen
	}
	if err != nil {
		return "", err
	}
	if a := at.Args(l.Text); len(a) >= 2 {
		return a[1], nil
	}
	return "missing", nil
}

// login: `+QMTCONN: 0,<result>[,<code>]`, where result 1 is a repetition, after
// which another one comes, and the code is that of the CONNACK.
func (c *qmt) login(ctx context.Context, s *Session) error {
	w := c.e.Expect(isLine("+QMTCONN", "0"))
	defer w.Stop()
	text := fmt.Sprintf(`AT+QMTCONN=0,"%s"`, s.login.ClientID)
	if s.login.Username != "" || s.login.Password != "" {
		text += fmt.Sprintf(`,"%s","%s"`, s.login.Username, s.login.Password)
	}
	if _, err := c.e.Do(ctx, at.Command{Text: text}); err != nil {
		if at.IsRejection(err) {
			err = fmt.Errorf("the module did not take the login; check the lengths of client_id, username and password (%w)", err)
		}
		return err
	}
	d := s.m.o.Timing.Connect
	var failed error
	for {
		l, err := s.wait(ctx, w, d)
		switch {
		case failed != nil && errors.Is(err, at.ErrTimeout):
			return failed
		case errors.Is(err, at.ErrTimeout):
			return noConnack(s.login, d)
		case err != nil:
			return s.refusedBehind(ctx, w, err, qmtLogin)
		}
		err, final := qmtLogin(l.Text)
		if final {
			return err
		}
		if err != nil { // another result may follow, as with ecmt
			failed, d = err, s.m.o.Timing.SecondResult
		}
	}
}

func qmtLogin(line string) (err error, final bool) {
	a := at.Args(line)
	if len(a) < 2 {
		return nil, false
	}
	code := 0
	if len(a) >= 3 {
		code, _ = strconv.Atoi(a[2])
	}
	switch {
	case code > 0:
		return &RefusedError{Code: code}, true
	case a[1] == "0":
		return nil, true
	case a[1] == "1": // sent again
		return nil, false
	}
	return fmt.Errorf("%w (result %s): the module could not send the login", errLostOnConnect, a[1]), false
}
