package modem

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"holdfast/modem/at"
)

// ecsoSockets are the sockets of Eigencomm firmware (AT+ECSO...). Bytes cross the
// line in hex, both ways, so a byte costs two. There are ten, they take addresses
// and no names, and a send may carry a number that comes back when the far side's
// TCP has acknowledged it.
//
// Announcements are wanted without the bytes (ECSONMI mode 1): then the module
// keeps what has come until it is asked for it, and TCP holds the far side back.
// Firmware that pushes the bytes all the same (mode 3) is understood.
type ecsoSockets struct {
	m *Modem
	e *at.Engine
}

// The limits of ECSOSD and ECSORF.
const (
	ecsoSend = 1400
	ecsoRead = 1358
)

func (*ecsoSockets) name() string { return "ecso" }
func (*ecsoSockets) chunk() int   { return ecsoSend }

// resolve asks the module for the address of a host, over its own network.
func (c *ecsoSockets) resolve(ctx context.Context, host string) (string, error) {
	if net.ParseIP(host) != nil {
		return host, nil
	}
	r, err := c.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+ECDNS="%s"`, host), Prefixes: []string{"+ECDNS"}, Timeout: c.m.o.Timing.Radio})
	if err != nil && !at.IsRejection(err) {
		return "", err
	}
	for _, a := range at.Args(r.First()) {
		if net.ParseIP(a) != nil {
			return a, nil
		}
	}
	return "", errNoAddress(host)
}

func (c *ecsoSockets) dial(ctx context.Context, host string, port int) (int, error) {
	ip, err := c.resolve(ctx, host)
	if err != nil {
		return 0, err
	}
	family := ""
	if strings.Contains(ip, ":") {
		family = ",1,AF_INET6"
	}
	if _, err := c.m.wish(ctx, c.e, at.Command{Text: "AT+ECSONMI=1"}); err != nil {
		return 0, err
	}
	r, err := c.create(ctx, family)
	if err != nil {
		return 0, err
	}
	id, err := strconv.Atoi(strings.TrimSpace(r.First()))
	if err != nil || id < 0 || id > 255 {
		return 0, errors.New("the module gave no number for a socket")
	}
	// What comes before the result of the connecting is about a socket that
	// nobody knows yet; a closing is an answer.
	w := c.e.Expect(func(l at.Line) bool {
		a := at.Args(l.Text)
		name := at.Name(l.Text)
		return (name == "+ECSOCO" || name == "+ECSOCLI") && len(a) >= 1 && a[0] == strconv.Itoa(id)
	})
	defer w.Stop()
	_, err = c.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+ECSOCO=%d,"%s",%d`, id, ip, port), Timeout: c.m.o.Timing.Open})
	if err == nil {
		var l at.Line
		begun := time.Now()
		l, err = w.Wait(ctx, c.m.o.Timing.Open)
		switch {
		case errors.Is(err, at.ErrTimeout):
			err = errSilentOpen
		case errors.Is(err, context.DeadlineExceeded) && time.Since(begun) > c.m.o.Timing.Open/3:
			err = fmt.Errorf("%w (it was not waited for any longer: %w)", errSilentOpen, err)
		case err == nil && at.Name(l.Text) == "+ECSOCLI":
			err = fmt.Errorf("it was closed at once: %s", l.Text)
		}
	}
	if err == nil {
		return id, nil
	}
	// It must not stay: there are ten.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.m.o.Timing.Close)
	defer cancel()
	if hangErr := c.hangUp(end, id); hangErr != nil {
		c.m.log.Debug("closing a socket that did not open", "error", hangErr)
	}
	return 0, errDial(host, port, err)
}

// create makes a socket. When none is left, they are of an earlier life of this
// process: those that are nobody's are closed, and it is tried again.
func (c *ecsoSockets) create(ctx context.Context, family string) (at.Response, error) {
	command := at.Command{Text: "AT+ECSOCR=STREAM,6,0" + family, Bare: true, Match: isNumber}
	r, err := c.e.Do(ctx, command)
	if !at.IsRejection(err) {
		return r, err
	}
	for id := range 10 {
		c.m.mu.Lock()
		mine := c.m.conns[id] != nil
		c.m.mu.Unlock()
		if mine {
			continue
		}
		if err := c.hangUp(ctx, id); err != nil && !at.IsRejection(err) {
			return r, err
		}
	}
	r, err = c.e.Do(ctx, command)
	if at.IsRejection(err) {
		err = fmt.Errorf("the module makes no socket; check the APN, and that the SIM has data left (%w)", err)
	}
	return r, err
}

func isNumber(line string) bool {
	_, err := strconv.Atoi(strings.TrimSpace(line))
	return err == nil
}

func (c *ecsoSockets) send(ctx context.Context, s *socket, p []byte) (int, error) {
	s.mu.Lock()
	if s.lastSend++; s.lastSend > 255 {
		s.lastSend = 1
	}
	number := s.lastSend
	// Its acknowledgement may come before the OK.
	s.unacked[number] = time.Now()
	s.mu.Unlock()
	r, err := c.e.Do(ctx, at.Command{
		Text: fmt.Sprintf("AT+ECSOSD=%d,%d,%X,0,%d", s.id, len(p), p, number),
		Bare: true, Match: isPair, Timeout: c.m.o.Timing.Radio,
	})
	if err != nil {
		s.mu.Lock()
		delete(s.unacked, number)
		s.mu.Unlock()
		return 0, err
	}
	// "<id>,<bytes>"; firmware that does not say has taken all.
	if a := strings.Split(r.First(), ","); len(a) == 2 {
		if n, err := strconv.Atoi(strings.TrimSpace(a[1])); err == nil && n >= 0 && n <= len(p) {
			return n, nil
		}
	}
	return len(p), nil
}

// isPair accepts "0,1400".
func isPair(line string) bool {
	a, b, ok := strings.Cut(line, ",")
	return ok && isNumber(a) && isNumber(b)
}

func (c *ecsoSockets) receive(ctx context.Context, s *socket, room int) ([]byte, bool, error) {
	r, err := c.e.Do(ctx, at.Command{
		Text: fmt.Sprintf("AT+ECSORF=%d,%d", s.id, min(room, ecsoRead)), Bare: true, Prefixes: []string{"+ECSORF"},
		Match: isECSORF,
	})
	if err != nil || len(r.Lines) == 0 {
		return nil, false, err
	}
	return parseECSORF(r.First())
}

// isECSORF accepts `[+ECSORF: ]<id>,"<address>",<port>,<bytes>,"<hex>",<left>`.
func isECSORF(line string) bool {
	a := at.Args(line)
	return len(a) == 6 && isNumber(a[0]) && isNumber(a[3])
}

// parseECSORF takes the bytes, and whether there are more.
func parseECSORF(line string) (p []byte, more bool, err error) {
	a := at.Args(line)
	n, errN := strconv.Atoi(a[3])
	left, errLeft := strconv.Atoi(a[5])
	p, errHex := hex.DecodeString(a[4])
	if errN != nil || errLeft != nil || errHex != nil || n != len(p) {
		return nil, false, fmt.Errorf("the module gave bytes that cannot be read (%d of %s)", len(a[4]), a[3])
	}
	return p, left > 0, nil
}

func (c *ecsoSockets) hangUp(ctx context.Context, id int) error {
	_, err := c.e.Do(ctx, at.Command{Text: fmt.Sprintf("AT+ECSOCL=%d", id)})
	return err
}

func (c *ecsoSockets) urc(l at.Line) (id int, ev socketEvent, ok bool) {
	name := at.Name(l.Text)
	switch name {
	case "+ECSONMI", "+ECSOCLI", "+ECSOSTR":
	default:
		return 0, ev, false
	}
	a := at.Args(l.Text)
	if len(a) < 2 {
		return 0, ev, false
	}
	id, err := strconv.Atoi(a[0])
	if err != nil {
		return 0, ev, false
	}
	switch name {
	case "+ECSOCLI":
		ev.closed = true
	case "+ECSOSTR":
		number, err := strconv.Atoi(a[1])
		if err != nil || len(a) < 3 {
			return 0, ev, false
		}
		ev.acked, ev.failed = number, a[2] == "0"
	case "+ECSONMI":
		if len(a) < 3 {
			ev.readable = true
			break
		}
		n, errN := strconv.Atoi(a[len(a)-2])
		p, err := hex.DecodeString(a[len(a)-1])
		if err != nil || errN != nil || n != len(p) || l.Cut {
			ev.failed = true // bytes are missing in the stream
			break
		}
		ev.pushed = p
	}
	return id, ev, true
}
