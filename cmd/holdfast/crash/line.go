package crash

import (
	"net"
	"sync"
)

// line is the way to the far broker: a TCP proxy that lets through, freezes or
// is cut.
type line struct {
	target  string
	ln      net.Listener
	running sync.WaitGroup

	mu    sync.Mutex
	mode  lineMode          // guarded by mu
	flow  chan struct{}     // closed while bytes may pass; guarded by mu
	conns map[net.Conn]bool // guarded by mu
}

type lineMode string

const (
	lineOpen   lineMode = "open"
	lineFrozen lineMode = "frozen" // connected, and nothing passes
	lineCut    lineMode = "cut"
)

func newLine(target string) (*line, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &line{target: target, ln: ln, mode: lineOpen, flow: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(l.flow)
	l.running.Go(l.accept)
	return l, nil
}

func (l *line) address() string { return l.ln.Addr().String() }

func (l *line) set(m lineMode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if frozen := l.mode == lineFrozen; frozen != (m == lineFrozen) {
		if frozen {
			close(l.flow)
		} else {
			l.flow = make(chan struct{})
		}
	}
	l.mode = m
	if m == lineCut {
		for c := range l.conns {
			if tc, ok := c.(*net.TCPConn); ok {
				tc.SetLinger(0) // a reset, as from a NAT that forgot the connection
			}
			c.Close()
		}
		clear(l.conns)
	}
}

func (l *line) now() lineMode {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mode
}

func (l *line) close() {
	l.ln.Close()
	l.set(lineCut)
	l.running.Wait()
}

func (l *line) accept() {
	for {
		in, err := l.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", l.target)
		if err != nil {
			in.Close()
			continue
		}
		l.mu.Lock()
		if l.mode == lineCut {
			in.Close()
			out.Close()
			l.mu.Unlock()
			continue
		}
		l.conns[in], l.conns[out] = true, true
		l.mu.Unlock()
		l.running.Go(func() { l.pipe(out, in) })
		l.running.Go(func() { l.pipe(in, out) })
	}
}

func (l *line) pipe(to, from net.Conn) {
	defer func() {
		to.Close()
		from.Close()
		l.mu.Lock()
		delete(l.conns, to)
		delete(l.conns, from)
		l.mu.Unlock()
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		l.mu.Lock()
		flow := l.flow
		l.mu.Unlock()
		<-flow // set(lineCut) opens it too
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}
