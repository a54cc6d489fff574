package modem

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"holdfast/modem/at"
)

// resolver are commands for sockets with one for names.
type resolver interface {
	// resolve returns the address of a host; the error wraps a *net.DNSError if
	// there is none, and is a rejection if the firmware has no such command.
	resolve(ctx context.Context, host string) (string, error)
}

// Resolve looks a name up by the way that connections through the modem do, and
// returns an address; "" if its firmware looks names up, but has no command for
// it. It waits as DialContext does.
func (m *Modem) Resolve(ctx context.Context, host string) (address string, err error) {
	if m.o.Interface != "" {
		all, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return "", err
		}
		return all[0], nil
	}
	if host == "" || len(host) > maxHost || unquotable(host) != "" {
		return "", fmt.Errorf("modem %s: %q is no name that a module can look up", m.o.Name, host)
	}
	lk, err := m.waitUp(ctx)
	if err != nil {
		return "", err
	}
	r, ok := lk.sockets().(resolver)
	if !ok {
		return "", nil
	}
	select {
	case <-m.dialing:
		defer func() { m.dialing <- struct{}{} }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if address, err = r.resolve(ctx, host); at.IsRejection(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("modem %s: %w", m.o.Name, err)
	}
	return address, nil
}

// errNoAddress is said of a name that the module does not find.
func errNoAddress(host string) error {
	return &net.DNSError{Err: "the module found no address; check the name, and that the SIM has data", Name: host, IsNotFound: true}
}

// resolve is AT+QIDNSGIP: the addresses come as +QIURC: "dnsgip", behind a line with
// a result and their number.
func (c *qiSockets) resolve(ctx context.Context, host string) (string, error) {
	if net.ParseIP(host) != nil {
		return host, nil
	}
	if err := c.activate(ctx); err != nil {
		return "", err
	}
	w := c.e.Expect(func(l at.Line) bool {
		a := at.Args(l.Text)
		if at.Name(l.Text) != "+QIURC" || len(a) < 2 || a[0] != "dnsgip" {
			return false
		}
		code, err := strconv.Atoi(a[1])
		return net.ParseIP(a[1]) != nil || err == nil && (code != 0 || len(a) < 3 || a[2] == "0")
	})
	defer w.Stop()
	if _, err := c.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+QIDNSGIP=%d,"%s"`, qiContext, host)}); err != nil {
		return "", err
	}
	l, err := w.Wait(ctx, c.m.o.Timing.Open)
	switch {
	case errors.Is(err, at.ErrTimeout):
		return "", fmt.Errorf("no answer to a look-up of %s: check that the SIM has data", host)
	case err != nil:
		return "", err
	}
	if address := at.Args(l.Text)[1]; net.ParseIP(address) != nil {
		return address, nil
	}
	return "", errNoAddress(host)
}
