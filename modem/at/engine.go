package at

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Options of an Engine. The zero value works.
type Options struct {
	Logger *slog.Logger
	// URC is called on the dispatch goroutine for every line that no command
	// and no waiter has claimed, in order. It must not block for long, and must
	// not call Do or Close.
	URC func(Line)
	// Open reports whether line is a URC whose payload may contain line ends,
	// and whether that payload is still open. See joiner.
	Open func(line string) (may, open bool)
	// Raw is the number of raw bytes that follow the end of this line; 0 for
	// most lines. They are delivered as Line.Data.
	Raw func(line string) int
	// Inline is the number of raw bytes that follow this beginning of a line,
	// which ends with a quotation mark; 0 for most. They are part of Line.Text. It
	// may be nil.
	Inline func(head string) int
	// Boot reports whether this line is said by a module that starts: a command in
	// flight is over then. It may be nil.
	Boot func(line string) bool
	// Timeout of a command that has none of its own; default 10 s.
	Timeout time.Duration
	// MaxLine bounds a line in bytes; default 8 KiB.
	MaxLine int
	// Idle is the silence that ends a drain; default 200 ms.
	Idle time.Duration
	// Gap is the silence that ends an open payload; default 50 ms.
	Gap time.Duration
	// SyncWait is how long one AT of a resync waits; default 1 s. SyncTries is
	// how many there are; default 5.
	SyncWait  time.Duration
	SyncTries int
}

func (o *Options) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.Timeout, 10*time.Second)
	set(&o.Idle, 200*time.Millisecond)
	set(&o.Gap, 50*time.Millisecond)
	set(&o.SyncWait, time.Second)
	if o.SyncTries <= 0 {
		o.SyncTries = 5
	}
	if o.MaxLine <= 0 {
		o.MaxLine = 8 << 10
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.URC == nil {
		o.URC = func(Line) {}
	}
}

// Stats counts what an engine has met.
type Stats struct {
	BytesIn, BytesOut uint64
	Timeouts          uint64 // commands without a final result in time
	Strays            uint64 // final results of no command: late ones, mostly
	Cut               uint64 // lines longer than the bound
	Lost              uint64 // URCs dropped because nobody took them in time
}

// Engine runs AT commands over one port. All of its methods may be called by
// any goroutine. It has three goroutines of its own, and Close awaits them.
type Engine struct {
	port io.ReadWriteCloser
	o    Options

	turn  chan struct{} // a token of one; its holder may have a command in flight
	dirty bool          // a command ran out of time; only with the turn held

	writes chan writeRequest

	mu        sync.Mutex
	lex       *lexer
	flight    *flight
	ghost     *flight // ran out of time; its late answer is discarded
	held      joiner
	rawLine   *Line   // a URC that waits for its raw block
	rawFlight *flight // a command, or its ghost, that does
	queue     []Line
	queued    int // bytes in queue
	lost      int // URCs lost since the last one queued
	waiters   []*Waiter
	wake      *sync.Cond // queue, failed
	lastByte  time.Time
	sample    []byte // the newest raw bytes, at most maxSample
	stats     Stats
	failed    bool
	err       error
	promptGap *time.Timer

	done chan struct{} // closed when the engine has failed or was closed
	wg   sync.WaitGroup
}

// New starts an engine on port. It owns the port from here on: Close of the
// port must unblock Read and Write. A Read that returns (0, nil) is taken as a
// read time-out of the port.
func New(port io.ReadWriteCloser, o Options) *Engine {
	o.defaults()
	e := &Engine{
		port:     port,
		o:        o,
		turn:     make(chan struct{}, 1),
		writes:   make(chan writeRequest),
		done:     make(chan struct{}),
		lastByte: time.Now(),
	}
	e.wake = sync.NewCond(&e.mu)
	e.lex = &lexer{max: o.MaxLine, emit: e.takeLocked, inline: o.Inline}
	e.turn <- struct{}{}
	e.wg.Go(e.read)
	e.wg.Go(e.write)
	e.wg.Go(e.dispatch)
	return e
}

// Close closes the port and waits for the engine's goroutines. It must not be
// called from Options.URC.
func (e *Engine) Close() error {
	e.fail(ErrClosed)
	e.wg.Wait()
	return nil
}

// Done is closed when the engine can do no more; Err says why.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Err is the reason for Done: ErrClosed, or what the port has said.
func (e *Engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// Stats are the counters until now.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

// Do runs one command and returns its answer. It waits for its turn first, and
// resynchronises if the command before ran out of time. The error is one of
// the types of this package, or wraps ctx's, or is that of the port.
func (e *Engine) Do(ctx context.Context, c Command) (Response, error) {
	if err := e.takeTurn(ctx); err != nil {
		return Response{}, fmt.Errorf("%s: %w", commandName(c.Text), err)
	}
	defer e.giveTurn()
	if e.dirty {
		if err := e.resync(ctx, e.o.SyncTries); err != nil {
			return Response{}, fmt.Errorf("%s was not sent: %w", commandName(c.Text), err)
		}
	}
	r, err := e.run(ctx, c)
	if err == nil || !e.dirty {
		return r, err
	}
	if c.Failed != nil {
		c.Failed(err)
	}
	if ctx.Err() != nil {
		return r, err
	}
	if syncErr := e.resync(ctx, e.o.SyncTries); syncErr != nil {
		err = fmt.Errorf("%w; %w", err, syncErr)
	}
	return r, err
}

func (e *Engine) takeTurn(ctx context.Context) error {
	select {
	case <-e.done:
		return e.Err()
	default:
	}
	select {
	case <-e.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-e.done:
		return e.Err()
	}
}

func (e *Engine) giveTurn() { e.turn <- struct{}{} }

// run writes the command and waits for its end. The turn is held.
func (e *Engine) run(ctx context.Context, c Command) (Response, error) {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = e.o.Timeout
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()

	f := newFlight(c)
	prompt := f.prompt
	e.mu.Lock()
	e.flight = f
	f.heard = e.stats.BytesIn
	e.lex.expectPrompt(prompt != nil)
	e.mu.Unlock()

	if err := e.send(ctx, timer, []byte(c.Text+"\r")); err != nil {
		return e.land(f, err, timeout)
	}
	for {
		select {
		case <-f.done:
			return e.land(f, nil, timeout)
		case <-prompt:
			prompt = nil
			f.paid = true
			if err := e.send(ctx, timer, c.Payload); err != nil {
				return e.land(f, err, timeout)
			}
		case <-timer.C:
			return e.land(f, ErrTimeout, timeout)
		case <-ctx.Done():
			return e.land(f, ctx.Err(), timeout)
		case <-e.done:
			return e.land(f, e.Err(), timeout)
		}
	}
}

// land takes the command out of flight. A final result that has come in the
// meantime counts; without one the engine is out of step from here on.
func (e *Engine) land(f *flight, err error, timeout time.Duration) (Response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flight = nil
	f.endLocked() // stops its timer
	e.lex.expectPrompt(false)
	name := commandName(f.cmd.Text)
	if f.over && !f.cut {
		if f.err != nil {
			return Response{Lines: f.lines, Final: f.final}, fmt.Errorf("%s: %w", name, f.err)
		}
		return Response{Lines: f.lines, Data: f.data, Final: f.final}, nil
	}
	e.ghost = f
	e.dirty = true
	if f.cut {
		return Response{}, &interruptedError{name}
	}
	if err == ErrTimeout {
		e.stats.Timeouts++
		return Response{}, &TimeoutError{Command: name, After: timeout}
	}
	return Response{}, fmt.Errorf("%s: %w", name, err)
}
