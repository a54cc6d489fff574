package queues

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"holdfast"
	"holdfast/storage"
)

// importLines puts the lines of the body into a queue and says now and then how
// far that is on disk. It stops at the first bad line unless skip_bad is given.
func (s *Server) importLines(w http.ResponseWriter, r *http.Request) {
	q := s.find(w, r, false)
	if q == nil {
		// A client that still sends would not read the answer.
		_, _ = io.Copy(io.Discard, r.Body)
		return
	}
	im := importer{q: q, out: newStream(w), skip: r.URL.Query().Get("skip_bad") != ""}
	if im.out.event(Event{Event: "begin"}) != nil {
		return
	}
	err := im.run(NewReader(stepReader{r.Body, im.out.ctl}))
	im.out.end(im.e, err)
	_, _ = io.Copy(io.Discard, stepReader{r.Body, im.out.ctl})
}

// stepReader gives each read a time of its own.
type stepReader struct {
	r   io.Reader
	ctl *http.ResponseController
}

func (s stepReader) Read(b []byte) (int, error) {
	if err := s.ctl.SetReadDeadline(time.Now().Add(stepWait)); err != nil {
		return 0, err
	}
	return s.r.Read(b)
}

// importer is one import under way.
type importer struct {
	q     *storage.Queue
	out   *stream
	skip  bool
	e     Event
	batch []storage.Append
	size  int
	// reached is the last line that was looked at; with the batch on disk
	// everything up to it is settled.
	reached int
}

func (im *importer) run(body *Reader) error {
	for {
		l, err := body.Next()
		if err == nil && !storage.Fits(l.Msg) {
			err = &BadLineError{body.Line(), holdfast.ErrTooLarge}
		}
		var bad *BadLineError
		switch {
		case errors.As(err, &bad):
			im.e.Note(bad)
			if im.skip {
				im.reached = bad.Line
				continue
			}
			return cmp.Or(im.put(), errors.New("a line is no message"))
		case err == io.EOF:
			im.reached = body.Line()
			return im.put()
		case err != nil:
			return cmp.Or(im.put(), fmt.Errorf("read the lines: %w", err))
		}
		if l.Msg.Received.IsZero() {
			l.Msg.Received = time.Now()
		}
		if im.size += l.Msg.Size(); im.size > storage.ImportBytes {
			if err := im.put(); err != nil {
				return err
			}
			im.size = l.Msg.Size()
		}
		im.batch = append(im.batch, storage.Append{Lane: l.Lane, Route: l.Route, Msg: l.Msg})
		im.reached = body.Line()
	}
}

// put makes the batch safe, and then says so. A crash before Import returns
// leaves the batch in the queue or not: the client was told of those before it.
func (im *importer) put() error {
	if len(im.batch) > 0 {
		if err := im.q.Import(im.batch); err != nil {
			return err
		}
	}
	im.e.Messages += uint64(len(im.batch))
	im.e.Line = im.reached
	im.batch, im.size = im.batch[:0], 0
	return im.out.event(Event{Event: "progress", Messages: im.e.Messages, Line: im.e.Line, BadLines: im.e.BadLines})
}

// Reader reads the lines of a file.
type Reader struct {
	r    *bufio.Reader
	line int
	buf  []byte
}

// NewReader reads from r, in bounded memory.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Line is the number of the line that Next has returned last, from 1 on.
func (r *Reader) Line() int { return r.line }

// BadLineError is a line that is no message. Reading may go on behind it.
type BadLineError struct {
	Line int
	Err  error
}

func (e *BadLineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *BadLineError) Unwrap() error { return e.Err }

// Next returns the next message, io.EOF at the end, and a *BadLineError for what
// is none. Empty lines are passed.
func (r *Reader) Next() (*Line, error) {
	for {
		r.buf = r.buf[:0]
		var err error
		for {
			var part []byte
			part, err = r.r.ReadSlice('\n')
			if len(r.buf) <= MaxLine { // of a longer one only the end is looked for
				r.buf = append(r.buf, part...)
			}
			if err != bufio.ErrBufferFull {
				break
			}
		}
		if err != nil && (err != io.EOF || len(r.buf) == 0) {
			return nil, err
		}
		r.line++
		text := bytes.TrimSpace(r.buf)
		if len(text) == 0 {
			continue
		}
		l, err := ParseLine(text)
		if err != nil {
			return nil, &BadLineError{r.line, err}
		}
		return l, nil
	}
}
