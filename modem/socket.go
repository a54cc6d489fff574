package modem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"holdfast/modem/at"
)

// The bounds of a socket.
const (
	// socketBuffer is what is kept on either side of a socket, in bytes. What is
	// to be sent waits here for the line; what has come stays in the module when
	// this is full, and the far side's TCP waits.
	socketBuffer = 16 << 10
	// pushedMost is what is kept of a module that gives bytes without being asked,
	// in bytes: nothing can hold it back. At 921,600 baud that is eleven seconds in
	// which nobody reads.
	pushedMost = 512 << 10
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
	lastAck  time.Time // when the last acknowledgement came
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

// arrived counts n bytes that came through a socket.
func (m *Modem) arrived(n int) {
	if n == 0 {
		return
	}
	m.meter.received(n)
	m.learn(func(st *Status) { st.Counters.PayloadIn += uint64(n) })
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
	if ev.acked != 0 {
		m.setAcksSockets(true)
	}
	m.mu.Lock()
	s := m.conns[id]
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

func (m *Modem) setAcksSockets(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acks = on
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
