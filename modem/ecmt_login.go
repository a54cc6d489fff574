package modem

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"holdfast/modem/at"
)

// ecmtLogin sends CONNECT and waits for the result. All three strings are
// given, also empty ones: with fewer, the firmware keeps those of an earlier
// login.
func (s *Session) ecmtLogin(ctx context.Context) error {
	w := s.e.Expect(func(l at.Line) bool {
		name := at.Name(l.Text)
		return name == "+ECMTCONN" || name == "+ECMTCON"
	})
	defer w.Stop()
	_, err := s.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+ECMTCONN=0,"%s","%s","%s"`,
		s.login.ClientID, s.login.Username, s.login.Password)})
	if at.IsRejection(err) {
		return fmt.Errorf("the module did not take the login; check that client_id, username and password "+
			"are no longer than 48, 48 and 96 bytes (%w)", err)
	}
	if err != nil {
		return err
	}
	d := s.m.o.Timing.Connect
	var failed error
	for {
		line, err := s.wait(ctx, w, d)
		switch {
		case err == nil:
		case failed != nil && errors.Is(err, at.ErrTimeout):
			return failed
		case errors.Is(err, at.ErrTimeout):
			return noConnack(s.login, d)
		default:
			return s.refusedBehind(ctx, w, err, loginResult)
		}
		if err, final := loginResult(line.Text); final {
			return err
		} else if failed == nil {
			failed = err
		}
		d = s.m.o.Timing.SecondResult
	}
}

// loginResult reads `+ECMTCONN: 0,<result>,<ret_code>`. Only 0,0,0 is success:
// the firmware gives the result 0 with every CONNACK, also with a refusal, and
// has the reason in ret_code. A result that is not final (0,2,2: CONNECT could
// not be sent; 0,0,6: the answer could not be read) may be followed by another
// one for the same command.
func loginResult(line string) (err error, final bool) {
	a := at.Args(line)
	if len(a) != 3 {
		return fmt.Errorf("the module reported a login result that cannot be understood (%d fields)", len(a)), false
	}
	result, err1 := strconv.Atoi(a[1])
	code, err2 := strconv.Atoi(a[2])
	switch {
	case err1 != nil || err2 != nil:
		return errors.New("the module reported a login result that cannot be understood"), false
	case result == 0 && code == 0:
		return nil, true
	case code >= 1 && code <= 5 && result != 2, result == 0 && code > 6:
		return &RefusedError{Code: code}, true
	}
	return fmt.Errorf("%w (result %d,%d): the module could not send the login or could not read the answer; "+
		"check the signal, and that the port is that of MQTT without TLS", errLostOnConnect, result, code), false
}

// refusedBehind is why a login has failed of which err was said. A broker closes the
// connection when it refuses a login, and the module may tell that before the answer.
func (s *Session) refusedBehind(ctx context.Context, w *at.Waiter, err error, result func(line string) (err error, final bool)) error {
	if s.Err() == nil {
		return err
	}
	line, waitErr := w.Wait(ctx, s.m.o.Timing.SecondResult)
	if waitErr != nil {
		return err
	}
	late, _ := result(line.Text)
	if refused := new(RefusedError); errors.As(late, &refused) {
		return late
	}
	return err
}

func noConnack(l Login, d time.Duration) error {
	return fmt.Errorf("the broker at %s:%d did not answer the login within %v; check that the port is that of MQTT "+
		"without TLS, and the signal", l.Host, l.Port, d)
}
