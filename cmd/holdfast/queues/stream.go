package queues

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"holdfast"
	"holdfast/storage"
)

// Long answers are streams of lines: messages as in a file, and events, which
// begin with {"event":. The last line is an event with End; without it the
// answer is cut off.

// Event is what a stream says beside messages.
type Event struct {
	Event string `json:"event"` // "begin", "progress", "end"
	// Messages is, at the beginning of an export, how many are to come, and then
	// how many there were.
	Messages uint64 `json:"messages"`
	// Bytes is about the size of all, at the beginning.
	Bytes int64 `json:"bytes,omitempty"`
	// InFlight were handed out and are not in an export.
	InFlight uint64 `json:"in_flight,omitempty"`
	// Unreadable could not be read and are not in an export.
	Unreadable uint64 `json:"unreadable,omitempty"`
	// Line is the last line of an import whose message is on disk, or that was
	// empty or skipped.
	Line int `json:"line,omitempty"`
	// Bad are the first lines that were not taken, BadLines how many they are.
	Bad      []BadLine `json:"bad,omitempty"`
	BadLines int       `json:"bad_lines,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// BadLine is a line of a file that is no message.
type BadLine struct {
	Line  int    `json:"line"`
	Error string `json:"error"`
}

// maxBad bounds how many bad lines are told one by one.
const maxBad = 20

// Note adds a bad line to an event.
func (e *Event) Note(bad *BadLineError) {
	e.BadLines++
	if len(e.Bad) < maxBad {
		e.Bad = append(e.Bad, BadLine{bad.Line, bad.Err.Error()})
	}
}

var eventPrefix = []byte(`{"event":`)

// stepWait bounds how long one step of a stream may take, so that a client that
// stands still does not hold a queue for ever; safeWait how long it may take a
// client to make its file safe.
const (
	stepWait = 2 * time.Minute
	safeWait = 30 * time.Minute
)

// stream writes an answer line by line. Reading the request meanwhile is allowed.
type stream struct {
	w   *bufio.Writer
	ctl *http.ResponseController
	buf []byte
	err error
}

func newStream(w http.ResponseWriter) *stream {
	s := &stream{ctl: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "application/x-ndjson")
	s.err = s.ctl.EnableFullDuplex()
	s.w = bufio.NewWriterSize(deadlineWriter{w, s.ctl}, 64<<10)
	return s
}

// deadlineWriter gives each write a time of its own.
type deadlineWriter struct {
	w   io.Writer
	ctl *http.ResponseController
}

func (d deadlineWriter) Write(b []byte) (int, error) {
	if err := d.ctl.SetWriteDeadline(time.Now().Add(stepWait)); err != nil {
		return 0, err
	}
	return d.w.Write(b)
}

func (s *stream) line(seen storage.Seen) error {
	if s.err != nil {
		return s.err
	}
	l := Line{Seq: seen.ID.Position(), Lane: seen.ID.Lane(), Route: seen.Route, Msg: seen.Msg}
	if s.buf, s.err = l.Append(s.buf[:0]); s.err != nil {
		s.err = fmt.Errorf("message %d of lane %v cannot be written: %w", l.Seq, l.Lane, s.err)
		return s.err
	}
	_, s.err = s.w.Write(s.buf)
	return s.err
}

// event writes e and everything before it.
func (s *stream) event(e Event) error {
	if s.err != nil {
		return s.err
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	s.w.Write(append(b, '\n'))
	if s.err = s.w.Flush(); s.err == nil {
		s.err = s.ctl.Flush()
	}
	return s.err
}

// end writes the last event, with err if that is why it ends.
func (s *stream) end(e Event, err error) {
	e.Event = "end"
	if err == nil {
		err = s.err // of a message that cannot be written
	}
	if err != nil {
		e.Error = err.Error()
	}
	s.err = nil
	_ = s.event(e) // the client is gone: it sees that the end is missing
}

// export answers with all messages of a queue. If they are not to be kept, it
// waits for the word "safe" in the body of the request, takes them out of the
// queue, and says so in another event. Whatever ends the connection before that
// leaves everything in the queue.
func (s *Server) export(w http.ResponseWriter, r *http.Request) {
	keep := r.URL.Query().Get("keep") != ""
	q := s.find(w, r, keep)
	if q == nil {
		return
	}
	if keep {
		s.copyOut(w, r, q)
		return
	}
	x, err := q.Export()
	if err != nil {
		refuse(w, status(err), err)
		return
	}
	defer x.End()
	out := newStream(w)
	n := uint64(0)
	if out.event(Event{Event: "begin", Messages: uint64(x.Messages), Bytes: x.Bytes}) != nil {
		return
	}
	unreadable, err := x.Each(r.Context(), func(seen storage.Seen) error { n++; return out.line(seen) })
	out.end(Event{Messages: n, Unreadable: unreadable, InFlight: uint64(x.Skipped())}, err)
	if err != nil || out.err != nil {
		return
	}
	_ = out.ctl.SetReadDeadline(time.Now().Add(safeWait))
	if word, err := io.ReadAll(io.LimitReader(r.Body, 5)); err != nil || string(word) != "safe\n" {
		return // the client could not make its file safe
	}
	n, err = x.Commit()
	out.end(Event{Messages: n}, err)
}

func (s *Server) copyOut(w http.ResponseWriter, r *http.Request, q *storage.Queue) {
	out := newStream(w)
	n := uint64(0)
	if out.event(Event{Event: "begin", Messages: uint64(q.Len()), Bytes: q.Bytes()}) != nil {
		return
	}
	unreadable, err := q.Peek(r.Context(), holdfast.AllLanes, func(seen storage.Seen) bool { n++; return out.line(seen) == nil })
	out.end(Event{Messages: n, Unreadable: unreadable}, err)
}
