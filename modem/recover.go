package modem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"holdfast"
	"holdfast/modem/at"
)

var (
	errRebooted = errors.New("the module has restarted")
	errStuck    = errors.New("the module's MQTT client is stuck")
	errPort     = errors.New("the port cannot be opened")
	// errWedged is a client that stays as it is when the radio goes and comes.
	errWedged = fmt.Errorf("%w", errStuck)
)

// needsPerson is the error of something that no reset can mend.
type needsPerson struct{ error }

func (e needsPerson) Unwrap() error { return e.error }

// Run supervises the module until ctx ends, and returns nil then: it opens the
// port, brings the module up, watches it, and recovers it. It must be called
// once. Whatever it starts has ended when it returns; an open Session has
// ended too, and still wants its Close.
func (m *Modem) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.running {
		m.mu.Unlock()
		return fmt.Errorf("modem %s is running already", m.o.Name)
	}
	m.running = true
	m.problem = errors.New("it is still starting")
	m.mu.Unlock()
	var measuring sync.WaitGroup
	measuring.Go(func() { m.measure(ctx) })
	defer measuring.Wait()
	defer m.giveTurn()
	for {
		err := m.live(ctx)
		if !m.leaving(err) {
			m.giveTurn()
		}
		if ctx.Err() != nil {
			m.down(holdfast.ErrClosed)
			return nil
		}
		m.down(err)
		m.count(err)
		wait := m.holdOff(err)
		m.complain(err, wait)
		m.absent(ctx, err)
		m.learn(func(s *Status) { s.Failures, s.RetryAt = m.failures, time.Now().Add(wait) })
		if !sleep(ctx, wait) {
			m.down(holdfast.ErrClosed)
			return nil
		}
	}
}

// complainAgain is how often a failure that lasts is told.
const complainAgain = time.Hour

// complain logs a failure, and one that is repeated seldom: a module that is not
// plugged in must not fill the disk with its log.
func (m *Modem) complain(err error, wait time.Duration) {
	level := slog.LevelWarn
	if err.Error() == m.complaint && time.Since(m.complained) < complainAgain {
		level = slog.LevelDebug
	} else {
		m.complaint, m.complained = err.Error(), time.Now()
	}
	m.log.Log(context.Background(), level, "modem failed", "error", err, "failures", m.failures, "retry_in", wait)
}

// live is one life of the port: open, bring up, watch. A module that reboots
// is brought up again without opening the port again.
func (m *Modem) live(ctx context.Context) error {
	port, err := m.openPort(ctx)
	if err != nil {
		return err
	}
	l := m.begin(ctx, port)
	defer m.closeLink(l)
	restarts := 0
	for {
		begun := time.Now()
		err := m.bringUp(ctx, l)
		if err == nil {
			m.giveTurn()
			m.ready(l)
			since := time.Now()
			err = m.watch(ctx, l)
			m.down(err)
			if time.Since(since) > m.o.Timing.HoldOffMax && !errors.Is(err, errStuck) {
				m.prove()
			}
		}
		if ctx.Err() != nil || !errors.Is(err, errRebooted) {
			return err
		}
		if time.Since(begun) > m.o.Timing.Registration {
			restarts = 0
		}
		if restarts++; restarts > maxRestarts {
			return errors.New("the module restarts over and over; check its power supply: " +
				"it draws up to 2 A for a moment when it sends")
		}
		m.log.Warn("module restarted; bringing it up again")
	}
}

// maxRestarts is how often a module may restart in one life, each time before
// it was up for long.
const maxRestarts = 5

// begin starts a life of the engine on port.
func (m *Modem) begin(ctx context.Context, port io.ReadWriteCloser) *link {
	l := &link{port: port, ending: make(chan error, 1)}
	if m.log.Enabled(ctx, levelTrace) {
		port = at.Trace(port, m.log)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l.e = at.New(port, m.engineOptions())
	m.link = l
	m.status.Counters.Opens++
	return l
}

func (m *Modem) openPort(ctx context.Context) (io.ReadWriteCloser, error) {
	open := m.openNamed
	if m.o.Open != nil {
		open = m.o.Open
	}
	port, err := open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPort, err)
	}
	return port, nil
}

func (m *Modem) engineOptions() at.Options {
	t := m.o.Timing
	return at.Options{
		Logger:   m.log,
		URC:      m.urc,
		Open:     openPayload,
		Boot:     isBoot,
		Inline:   qmtPayload,
		Raw:      cmqttRaw,
		Timeout:  t.Command,
		Idle:     t.Idle,
		Gap:      t.Gap,
		SyncWait: t.SyncWait,
	}
}

// closeLink ends the life: the session first, so that its publishes are
// settled, then the engine.
func (m *Modem) closeLink(l *link) {
	m.mu.Lock()
	s := m.session
	m.mu.Unlock()
	closed := errors.New("the AT port was closed")
	if s != nil {
		s.fail(closed)
	}
	m.endSockets(closed)
	l.e.Close()
	m.socketsRunning.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Counters.add(l.e.Stats())
	m.link = nil
}

// ready lets connections begin, unless the life is to end already.
func (m *Modem) ready(l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(l.ending) > 0 {
		return
	}
	m.up, m.problem = true, nil
	m.complaint = ""
	m.status.RetryAt, m.status.Failures = time.Time{}, 0
	m.setStateLocked(StateReady)
	m.changedLocked()
	m.log.Info("modem ready", "model", m.status.Model.Value, "operator", m.status.Operator.Value,
		"signal_dbm", m.status.Signal.DBm, "ip", m.status.IP.Value)
}

// down ends the epoch for err.
func (m *Modem) down(err error) {
	m.mu.Lock()
	s := m.session
	m.up = false
	m.problem = err
	m.setStateLocked(StateDown)
	m.changedLocked()
	m.mu.Unlock()
	if err == nil {
		return
	}
	if s != nil {
		s.fail(err)
	}
	m.endSockets(err)
}

// count keeps the ladder. A connection that was made in between proves the
// module good, and the ladder begins at its foot.
func (m *Modem) count(err error) {
	m.mu.Lock()
	proved := m.proved
	m.proved = false
	m.mu.Unlock()
	if proved {
		m.failures, m.resets = 0, 0
	}
	m.waits++
	if proved {
		m.waits = 1
	}
	// A rung that was used is not used again at once, whatever came of it: a module on
	// USB leaves the bus when it is reset, and its port hangs up.
	stepped := m.stepped && !proved
	m.stepped = false
	var person needsPerson
	if !stepped && (m.carries() || notThere(err) || errors.As(err, &person)) {
		return
	}
	m.failures++
	if errors.Is(err, errWedged) {
		m.resets = max(m.resets, slices.Index(m.steps(), stepModule))
	}
	if errors.Is(err, errStuck) { // opening the port again is of no use
		for m.step() == "" {
			m.failures++
		}
	}
}

// notThere reports whether err is of a port that cannot be opened, or that was
// unplugged: nothing that a reset can mend.
func notThere(err error) bool { return errors.Is(err, errPort) || errors.Is(err, io.EOF) }

// prove says that the module has shown itself good.
func (m *Modem) prove() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proved = true
}

// holdOff doubles with every failure, with a quarter of jitter. A port that is
// not there is looked for more often: somebody may be plugging it in.
func (m *Modem) holdOff(err error) time.Duration {
	d := m.o.Timing.HoldOff
	for i := 1; i < m.waits && d < m.o.Timing.HoldOffMax; i++ {
		d *= 2
	}
	d = min(d, m.o.Timing.HoldOffMax)
	if notThere(err) {
		d = min(d, 5*m.o.Timing.HoldOff)
	}
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// watch waits for the end of the life, and asks for signal and registration
// meanwhile.
func (m *Modem) watch(ctx context.Context, l *link) error {
	ticker := time.NewTicker(m.o.Timing.Poll)
	defer ticker.Stop()
	var lostAt time.Time
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.e.Done():
			return l.e.Err()
		case err := <-l.ending:
			return err
		case <-ticker.C:
		}
		stat, err := m.poll(ctx, l.e, n)
		switch {
		case errors.Is(err, at.ErrUnsynced):
			return m.silent(l.e)
		case err != nil:
			m.log.Debug("modem poll failed", "error", err)
			continue
		case stat == 1 || stat == 5:
			lostAt = time.Time{}
		case lostAt.IsZero():
			lostAt = time.Now()
			m.log.Warn("registration lost", "state", registrationWords(stat))
		case time.Since(lostAt) >= m.o.Timing.Registration:
			return registrationError(stat, m.Status().Signal)
		}
	}
}

// sleep waits for d and reports whether ctx is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
