package modem

import (
	"context"
	"errors"
	"fmt"

	"holdfast/modem/at"
)

// maxSubscriptions is the number of filters that the firmware has a handler
// for; whether it delivers more is not known.
const maxSubscriptions = 5

// subscribe: the firmware reports success also for a subscription that the
// broker has refused (SUBACK 0x80), so nil means only that the broker has
// answered; and it does not tell the granted QoS.
func (c *ecmt) subscribe(ctx context.Context, s *Session, id uint16, filter string, qos byte) error {
	s.mu.Lock()
	s.subs++
	if s.subs > maxSubscriptions {
		s.log.Warn("more subscriptions than the module has handlers for; some may stay silent", "filters", s.subs)
	}
	s.mu.Unlock()
	w := s.e.Expect(func(l at.Line) bool {
		a := at.Args(l.Text)
		return at.Name(l.Text) == "+ECMTSUB" && len(a) >= 3 && a[1] == fmt.Sprint(id)
	})
	defer w.Stop()
	_, err := s.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+ECMTSUB=0,%d,"%s",%d`, id, filter, qos)})
	var line at.Line
	if err == nil {
		line, err = s.wait(ctx, w, s.m.o.Timing.Subscribe)
	}
	switch {
	case errors.Is(err, at.ErrTimeout):
		return fmt.Errorf("subscribing to %s: the broker did not answer within %v; check the signal", filter, s.m.o.Timing.Subscribe)
	case err != nil:
		return fmt.Errorf("subscribing to %s: %w", filter, err)
	}
	switch result := at.Args(line.Text)[2]; result {
	case "0":
		return nil
	case "1":
		return fmt.Errorf("subscribing to %s: the broker's answer was not one to a subscription; check the filter and its rights", filter)
	default:
		return fmt.Errorf("subscribing to %s: the module could not send it (result %s)", filter, result)
	}
}
