package modem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"holdfast"
	"holdfast/modem/at"
)

// The bounds of a socket.
const (
	// socketBuffer is what is kept on either side of a socket, in bytes. What is
	// to be sent waits here for the line; what has come stays in the module when
	// this is full, and the far side's TCP waits.
	socketBuffer = 16 << 10
	// socketPoll is how long the module may say nothing of new bytes before it is
	// asked: its announcement may have been lost.
	socketPoll = 10 * time.Second
	// readEvery is how often the module is asked for what has come while there is
	// enough to be sent: every question costs the line about 10 ms, and what comes
	// meanwhile is mostly small.
	readEvery = 250 * time.Millisecond
	// socketRetries is how often a send that the module refuses is repeated.
	socketRetries = 20
)

// socketCommands are the AT commands of one firmware for a TCP socket. Its
// methods run on the goroutine of the socket, except urc.
type socketCommands interface {
	name() string
	// dial opens the socket and returns its number.
	dial(ctx context.Context, host string, port int) (id int, err error)
	// chunk is the most bytes of one send.
	chunk() int
	// send hands p to the module and returns how much of it was taken. The error
	// is a rejection if the module has no room now.
	send(ctx context.Context, s *socket, p []byte) (n int, err error)
	// receive takes at most room bytes that the module has. more says that there
	// may be further ones.
	receive(ctx context.Context, s *socket, room int) (p []byte, more bool, err error)
	// hangUp closes the socket in the module.
	hangUp(ctx context.Context, id int) error
	// urc looks at an unsolicited line: whether it is about a socket, which one,
	// and what it says.
	urc(l at.Line) (id int, ev socketEvent, ok bool)
}

// socketEvent is what a module says of a socket by itself.
type socketEvent struct {
	readable bool   // there are bytes to be taken
	pushed   []byte // these bytes have come
	closed   bool   // the far side has closed it, or it was lost
	acked    int    // this send was acknowledged, if not 0
	failed   bool   // the send of acked was not
}

// socket is a TCP connection inside the module, as a net.Conn. Every byte crosses
// the line in AT commands, one at a time, so that both directions share it.
//
// Deadlines, Close, and the end of the far side are as with any net.Conn. What
// was written before Close is still sent. There is no CloseWrite: these modules
// cannot close one direction. The end of the far side is seen after all that it
// has sent was read.
type socket struct {
	m        *Modem
	e        *at.Engine
	commands socketCommands
	id       int
	remote   socketAddr

	wake   chan struct{} // capacity 1: something has changed for run
	ended  chan struct{} // closed when run has ended
	cancel context.CancelFunc

	readBy, writeBy deadline

	lastRead time.Time // when the module was asked last; only run

	mu       sync.Mutex
	change   chan struct{}     // closed and replaced when something changes for callers
	in       []byte            // has come, and was not read yet
	out      []byte            // was written, and not handed to the module yet
	readable bool              // the module may have bytes
	pushes   bool              // the module gives them by itself
	eof      bool              // the far side has closed
	closed   bool              // Close was called
	err      error             // the connection is gone, why
	unacked  map[int]time.Time // sends without an acknowledgement: number to when
	lastSend int
}

type socketAddr struct{ host string }

func (a socketAddr) Network() string { return "tcp" }
func (a socketAddr) String() string  { return a.host }

// errNoSocket: the firmware has no commands for sockets that are known here.
var errNoSocket = errors.New("the module has no commands for TCP sockets that are known here")

// DialContext opens a TCP connection inside the module; network is "tcp", and
// the module resolves the name. It waits until the modem is registered, until ctx
// ends. Its error says what it means and what to try. With Options.Interface the
// connection is the board's, over that.
func (m *Modem) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" {
		return nil, fmt.Errorf("modem %s: there is no %s through a module, only tcp", m.o.Name, network)
	}
	if m.o.Interface != "" {
		return m.dialKernel(ctx, network, address)
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 || host == "" || len(host) > maxHost || unquotable(host) != "" {
		return nil, fmt.Errorf("modem %s: %q is no address that a module can reach", m.o.Name, address)
	}
	lk, err := m.waitUp(ctx)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	s, err := m.openSocket(ctx, lk, host, port)
	if err != nil {
		m.failedConnect(lk, err, time.Since(begun))
		return nil, fmt.Errorf("modem %s: %w", m.o.Name, err)
	}
	return s, nil
}

func (m *Modem) openSocket(ctx context.Context, lk *link, host string, port int) (*socket, error) {
	commands := lk.sockets()
	if commands == nil {
		return nil, errNoSocket
	}
	// One at a time: the answer to a dial does not always say which it is for.
	select {
	case <-m.dialing:
		defer func() { m.dialing <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	id, err := commands.dial(ctx, host, port)
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	s := &socket{
		m: m, e: lk.e, commands: commands, id: id,
		remote: socketAddr{net.JoinHostPort(host, strconv.Itoa(port))},
		wake:   make(chan struct{}, 1), ended: make(chan struct{}), cancel: cancel,
		change: make(chan struct{}), unacked: make(map[int]time.Time),
		readable: true, // what has come meanwhile was announced to nobody
	}
	m.mu.Lock()
	gone := m.link != lk || !m.up || lk.sockets() != commands
	if !gone {
		m.conns[id] = s
		m.status.Counters.Connects++
		m.proved = true
		m.wedges, m.opens = 0, 0
		m.setStateLocked(StateConnected)
	}
	m.mu.Unlock()
	if gone {
		cancel()
		return nil, errRebooted
	}
	m.meter.opened()
	m.socketsRunning.Add(1)
	go func() {
		defer m.socketsRunning.Done()
		s.run(run)
	}()
	return s, nil
}

// run is the goroutine that moves the bytes, until Close or the end of the
// connection.
func (s *socket) run(ctx context.Context) {
	defer close(s.ended)
	poll := time.NewTimer(socketPoll)
	defer poll.Stop()
	refused := 0
	for {
		worked, err := s.step(ctx, &refused)
		switch {
		case err != nil:
			s.fail(err)
		case worked:
			continue
		}
		if s.over() {
			break
		}
		wait := socketPoll
		if refused > 0 {
			wait = s.m.o.Timing.SyncWait / 5 // the module has no room; it says nothing when it has
		}
		poll.Reset(wait)
		select {
		case <-s.wake:
		case <-poll.C:
			s.mu.Lock()
			s.readable = s.readable || s.err == nil && !s.closed
			s.mu.Unlock()
		case <-s.e.Done():
			s.fail(s.e.Err())
		}
	}
	s.m.socketEnded(s)
}

// arrived counts n bytes that came through a socket.
func (m *Modem) arrived(n int) {
	if n == 0 {
		return
	}
	m.meter.received(n)
	m.learn(func(st *Status) { st.Counters.PayloadIn += uint64(n) })
}

// over reports whether there is nothing more to do, and when.
func (s *socket) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil && (s.closed || s.err != io.EOF) || s.closed && len(s.out) == 0
}

// step sends one piece and takes one piece, and reports whether it did anything.
func (s *socket) step(ctx context.Context, refused *int) (worked bool, err error) {
	waits := s.m.acksSockets()
	s.mu.Lock()
	maps.DeleteFunc(s.unacked, func(_ int, at time.Time) bool { return time.Since(at) >= socketAckWait })
	n := min(len(s.out), s.commands.chunk())
	if len(s.unacked) >= socketWindow && waits || s.eof && s.closed {
		n = 0
	}
	p := append([]byte(nil), s.out[:n]...)
	room := socketBuffer - len(s.in)
	take := s.readable && room >= socketBuffer/4 && !s.closed && (!s.pushes || s.eof)
	if n == s.commands.chunk() && time.Since(s.lastRead) < readEvery {
		take = false
	}
	if s.eof && s.closed {
		s.out = nil // nobody is there to take it
	}
	s.mu.Unlock()
	if n > 0 {
		sent, err := s.commands.send(ctx, s, p)
		switch {
		case at.IsRejection(err):
			if *refused++; *refused > socketRetries {
				return false, fmt.Errorf("the module does not take bytes for the connection any more (%w)", err)
			}
		case err != nil:
			return false, fmt.Errorf("nobody knows what the module has taken: %w", err)
		default:
			*refused = 0
			s.mu.Lock()
			s.out = s.out[sent:]
			if len(s.out) == 0 {
				s.out = nil
			}
			s.changedLocked()
			s.mu.Unlock()
			s.m.learn(func(st *Status) { st.Counters.PayloadOut += uint64(sent) })
			s.m.meter.sent(sent)
			worked = sent > 0
		}
	}
	if !take {
		return worked, nil
	}
	s.mu.Lock()
	s.lastRead = time.Now()
	s.readable = false // an announcement from here on is of new bytes
	s.mu.Unlock()
	got, more, err := s.commands.receive(ctx, s, room)
	if at.IsRejection(err) { // it is closed, if not by what was said then by this
		s.end()
		return worked, nil
	}
	if err != nil {
		return worked, fmt.Errorf("nobody knows what the module has given: %w", err)
	}
	s.m.arrived(len(got))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = append(s.in, got...)
	s.readable = s.readable || more
	if len(got) == 0 && !s.readable && s.eof && s.err == nil {
		s.err = io.EOF // all that it had was taken
	}
	if len(got) > 0 || s.err != nil {
		s.changedLocked()
	}
	return worked || len(got) > 0 || more, nil
}

const (
	// socketWindow is the most sends without an acknowledgement.
	socketWindow = 4
	// socketAckWait is how long one is waited for. Its line may have been lost; that
	// the bytes have arrived is for TCP to see to.
	socketAckWait = socketPoll
)

func (s *socket) changedLocked() {
	close(s.change)
	s.change = make(chan struct{})
}

func (s *socket) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fail ends the connection for err.
func (s *socket) fail(err error) {
	s.mu.Lock()
	if s.err == nil || s.err == io.EOF && s.closed {
		s.err = fmt.Errorf("the connection through modem %s is lost: %w", s.m.o.Name, err)
	}
	s.changedLocked()
	s.mu.Unlock()
	s.wakeUp()
}

// end says that the far side has closed; what the module still has is taken
// first.
func (s *socket) end() {
	s.mu.Lock()
	if s.eof && s.err == nil && !s.readable {
		s.err = io.EOF
		s.changedLocked()
	}
	s.readable = s.readable || !s.eof
	s.eof = true
	s.mu.Unlock()
	s.wakeUp()
}

// event takes what the module has said of this socket.
func (s *socket) event(ev socketEvent) {
	if ev.failed {
		s.fail(errors.New("the module could not send"))
		return
	}
	s.m.arrived(len(ev.pushed))
	s.mu.Lock()
	if ev.acked != 0 {
		delete(s.unacked, ev.acked)
	}
	s.readable = s.readable || ev.readable
	if len(ev.pushed) > 0 {
		s.pushes = true
		if s.in = append(s.in, ev.pushed...); len(s.in) > 4*socketBuffer && s.err == nil {
			s.err = errors.New("the module pushes more than is read")
		}
		s.changedLocked()
	}
	s.mu.Unlock()
	if ev.closed {
		s.end()
	}
	s.wakeUp()
}

// Read is net.Conn's.
func (s *socket) Read(p []byte) (int, error) {
	for {
		passed, anew := s.readBy.watch()
		select {
		case <-passed:
			if !s.isClosed() {
				return 0, s.opError("read", os.ErrDeadlineExceeded)
			}
		default:
		}
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return 0, s.opError("read", net.ErrClosed)
		case len(p) == 0:
			s.mu.Unlock()
			return 0, nil
		case len(s.in) > 0:
			n := copy(p, s.in)
			if s.in = s.in[n:]; len(s.in) == 0 {
				s.in = nil
			}
			s.mu.Unlock()
			s.wakeUp()
			return n, nil
		case s.err != nil:
			err := s.err
			s.mu.Unlock()
			if err == io.EOF {
				return 0, io.EOF
			}
			return 0, s.opError("read", err)
		}
		change := s.change
		s.mu.Unlock()
		select {
		case <-change:
		case <-passed:
		case <-anew:
		}
	}
}

// Write is net.Conn's: it returns when all of p is in the buffer that is sent
// from, which is not yet the far side.
func (s *socket) Write(p []byte) (n int, err error) {
	for {
		passed, anew := s.writeBy.watch()
		select {
		case <-passed:
			if !s.isClosed() {
				return n, s.opError("write", os.ErrDeadlineExceeded)
			}
		default:
		}
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return n, s.opError("write", net.ErrClosed)
		case s.err != nil || s.eof:
			err := s.err
			s.mu.Unlock()
			if err == nil || err == io.EOF {
				err = errors.New("the far side has closed the connection")
			}
			return n, s.opError("write", err)
		}
		if room := min(socketBuffer-len(s.out), len(p)-n); room > 0 {
			s.out = append(s.out, p[n:n+room]...)
			n += room
			s.wakeUp()
		}
		change := s.change
		s.mu.Unlock()
		if n == len(p) {
			return n, nil
		}
		select {
		case <-change:
		case <-passed:
		case <-anew:
		}
	}
}

// Close sends what is left, for Timing.Close at most, and closes the socket in
// the module. It must not be called from Options.URC of the engine.
func (s *socket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.ended
		return s.opError("close", net.ErrClosed)
	}
	s.closed = true
	s.changedLocked()
	s.mu.Unlock()
	s.readBy.stop()
	s.writeBy.stop()
	s.wakeUp()
	t := time.AfterFunc(s.m.o.Timing.Close, func() {
		s.fail(errors.New("it took too long to send what was left"))
		s.cancel()
	})
	defer t.Stop()
	<-s.ended
	return nil
}

func (s *socket) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *socket) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.remote, Err: err}
}

// LocalAddr names the modem: the address of the socket is the operator's.
func (s *socket) LocalAddr() net.Addr { return socketAddr{"modem " + s.m.o.Name} }

// RemoteAddr is the address that was dialled.
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline is net.Conn's.
func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline is net.Conn's.
func (s *socket) SetReadDeadline(t time.Time) error {
	if s.isClosed() {
		return s.opError("set", net.ErrClosed)
	}
	s.readBy.set(t)
	return nil
}

// SetWriteDeadline is net.Conn's.
func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.isClosed() {
		return s.opError("set", net.ErrClosed)
	}
	s.writeBy.set(t)
	return nil
}

// socketEnded takes s out of the modem and closes it inside the module.
func (m *Modem) socketEnded(s *socket) {
	defer s.cancel()
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	m.mu.Lock()
	if m.conns[s.id] == s {
		delete(m.conns, s.id)
	}
	current := m.link != nil && m.link.e == s.e && m.up
	if len(m.conns) == 0 && m.session == nil && m.status.State == StateConnected {
		m.setStateLocked(StateReady)
	}
	if err != nil && err != io.EOF {
		m.status.Counters.Lost++
	}
	m.mu.Unlock()
	m.log.Info("modem connection ended", "error", err)
	if !current {
		return // the module has forgotten it, or nothing can be said to it
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.o.Timing.Close)
	defer cancel()
	if err := s.commands.hangUp(ctx, s.id); err != nil && !at.IsRejection(err) {
		m.log.Debug("closing the module's socket", "error", err)
	}
}

// endSockets fails every socket: the module has lost them.
func (m *Modem) endSockets(err error) {
	m.mu.Lock()
	var all []*socket
	for _, s := range m.conns {
		all = append(all, s)
	}
	clear(m.conns)
	m.mu.Unlock()
	for _, s := range all {
		s.fail(err)
	}
}

// socketURC gives a line to the socket that it is about.
func (m *Modem) socketURC(lk *link, l at.Line) bool {
	if lk == nil || lk.sockets() == nil {
		return false
	}
	id, ev, ok := lk.sockets().urc(l)
	if !ok {
		return false
	}
	m.mu.Lock()
	s := m.conns[id]
	if ev.acked != 0 {
		m.acks = true
	}
	m.mu.Unlock()
	if s != nil {
		s.event(ev)
	}
	return true
}

// acksSockets reports whether the module acknowledges sends: some firmware does
// not, whatever its manual says, and must not be waited for.
func (m *Modem) acksSockets() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acks
}

// HasSocket waits until the modem is registered, and reports whether its firmware
// has TCP sockets, or the board a network interface of it, which is not waited for.
func (m *Modem) HasSocket(ctx context.Context) (bool, error) {
	if m.o.Interface != "" {
		return true, nil
	}
	lk, err := m.waitUp(ctx)
	if err != nil {
		return false, err
	}
	return lk.sockets() != nil, nil
}

var _ net.Conn = (*socket)(nil)

// errDial explains a connection that did not come about, for holdfast.ErrUnknown
// is no fate of a dial.
func errDial(host string, port int, err error) error {
	if errors.Is(err, holdfast.ErrClosed) {
		return err
	}
	return fmt.Errorf("the module could not reach %s:%d (%w); check the host name and the port of the url, "+
		"that the SIM has data, and that a firewall or the APN lets it through", host, port, err)
}
