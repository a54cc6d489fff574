package queues

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"holdfast"
)

// ErrNobody: no gateway listens at the socket.
var ErrNobody = errors.New("no gateway answers")

// Client asks a Server.
type Client struct {
	http http.Client
	// How says on what the client works, for people.
	How   string
	close func() error
}

func newClient(how string, dial func(context.Context) (net.Conn, error), closing func() error) *Client {
	return &Client{
		How: how, close: closing,
		http: http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		}},
	}
}

// Dial finds the gateway behind a unix socket. It returns ErrNobody if there is
// no socket, or nobody listens on it.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := newClient("the running gateway ("+socket+")", func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}, func() error { return nil })
	var list []Info
	err := c.get(ctx, "", nil, &list)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w at %s", ErrNobody, socket)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: %w; run the command as the user of the gateway, or as root", socket, err)
	case err != nil:
		return nil, fmt.Errorf("ask the gateway at %s: %w", socket, err)
	}
	return c, nil
}

// Local is the client of a Server in the same process; closing is called by
// Close when nothing is served any more.
func Local(how string, s *Server, closing func() error) *Client {
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: s.All(), ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ln) // http.ErrServerClosed
	}()
	return newClient(how, ln.dial, func() error {
		err := srv.Close()
		<-served
		return errors.Join(err, closing())
	})
}

// pipeListener is a net.Listener without a network.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { close(l.closed); return nil }

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// Close ends the client, and the server if it is in the same process.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return c.close()
}

func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	u := "http://gateway/api/v1/queues" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, errors.Unwrap(err) // without the address, which says nothing
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var p problem
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p) != nil || p.Error == "" {
		return nil, fmt.Errorf("the gateway answered %s; is it of an older version?", resp.Status)
	}
	return nil, errors.New(p.Error)
}

// maxAnswer bounds what is read of an answer that is one JSON value.
const maxAnswer = 64 << 20

func (c *Client) get(ctx context.Context, path string, query url.Values, v any) error {
	return c.ask(ctx, http.MethodGet, path, query, v)
}

func (c *Client) ask(ctx context.Context, method, path string, query url.Values, v any) error {
	resp, err := c.request(ctx, method, path, query, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(v)
}

// List lists the queues.
func (c *Client) List(ctx context.Context) (list []Info, err error) {
	return list, c.get(ctx, "", nil, &list)
}

// Quarantine lists what is in quarantine.
func (c *Client) Quarantine(ctx context.Context, queue string) (list []Aside, err error) {
	return list, c.get(ctx, "/quarantine", url.Values{"queue": {queue}}, &list)
}

// change asks for a change; an error may come with a part of it done.
func (c *Client) change(ctx context.Context, path string, query url.Values) (done Changed, err error) {
	if err = c.ask(ctx, http.MethodPost, path, query, &done); err == nil && done.Error != "" {
		err = errors.New(done.Error)
	}
	return done, err
}

// Purge drops what is older than an age, or everything if that is zero.
func (c *Client) Purge(ctx context.Context, queue string, olderThan time.Duration) (Changed, error) {
	query := url.Values{"queue": {queue}}
	if olderThan > 0 {
		query.Set("older_than", olderThan.String())
	}
	return c.change(ctx, "/purge", query)
}

// Unquarantine puts messages back into the queue, or drops them; those of ids,
// or all if there are none.
func (c *Client) Unquarantine(ctx context.Context, queue string, drop bool, ids []string) (Changed, error) {
	query := url.Values{"queue": {queue}, "id": ids}
	if len(ids) == 0 {
		query.Set("all", "1")
	}
	if drop {
		return c.change(ctx, "/quarantine/drop", query)
	}
	return c.change(ctx, "/quarantine/retry", query)
}

// Peek calls yield for the first n messages of a queue, or of one lane of it.
func (c *Client) Peek(ctx context.Context, queue, lane string, n int, yield func(*Line)) error {
	resp, err := c.request(ctx, http.MethodGet, "/peek", url.Values{"queue": {queue}, "lane": {lane}, "n": {strconv.Itoa(n)}}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = newEventReader(resp.Body).untilEnd(func(b []byte) error {
		l, err := ParseLine(bytes.TrimSpace(b))
		if err == nil {
			yield(l)
		}
		return err
	}, nil)
	return err
}

// Export calls begin, then yield for each line with its newline, then safe, if
// the messages are not to be kept: it must make the copy safe, and they leave the
// queue only after it has returned nil. The last event says how many did.
func (c *Client) Export(ctx context.Context, queue string, keep bool, begin func(Event), yield func(line []byte) error, safe func(copied Event) error) (end Event, err error) {
	query := url.Values{"queue": {queue}}
	if keep {
		query.Set("keep", "1")
	}
	// The body of the request stays open until the copy is safe. If it is not,
	// the connection ends without the word.
	body, say := io.Pipe()
	defer say.CloseWithError(errors.New("given up"))
	resp, err := c.request(ctx, http.MethodPost, "/export", query, body)
	if err != nil {
		return end, err
	}
	defer resp.Body.Close()
	in := newEventReader(resp.Body)
	copied, err := in.untilEnd(yield, begin)
	if err != nil {
		return copied, err
	}
	if err := safe(copied); err != nil || keep {
		return copied, err
	}
	// From here on the file is the only place that is promised to have them.
	if _, err = io.WriteString(say, "safe\n"); err == nil {
		err = say.Close()
	}
	if err == nil {
		end, err = in.untilEnd(nil, nil)
	}
	if err != nil {
		return copied, fmt.Errorf("the file is complete, but the gateway has not said that the messages have left the queue: they may be sent as well: %w", err)
	}
	copied.Messages = end.Messages
	return copied, nil
}

// Import sends the lines of r to a queue and calls progress for how far they are
// on disk. The last event is returned, also with an error.
func (c *Client) Import(ctx context.Context, queue string, skipBad bool, r io.Reader, progress func(Event)) (last Event, err error) {
	query := url.Values{"queue": {queue}}
	if skipBad {
		query.Set("skip_bad", "1")
	}
	resp, err := c.request(ctx, http.MethodPost, "/import", query, io.NopCloser(r))
	if err != nil {
		return last, err
	}
	defer resp.Body.Close()
	end, err := newEventReader(resp.Body).untilEnd(nil, func(e Event) {
		last = e
		progress(e)
	})
	if end.Event == "" {
		end = last // the answer was cut off: this much is known
	}
	return end, err
}

// eventReader reads a stream.
type eventReader struct{ r *bufio.Reader }

func newEventReader(r io.Reader) *eventReader { return &eventReader{bufio.NewReaderSize(r, 2*MaxLine)} }

// untilEnd reads up to the next event that is an end, and returns it; an error
// that it tells is one.
func (a *eventReader) untilEnd(line func([]byte) error, event func(Event)) (Event, error) {
	for {
		b, err := a.r.ReadSlice('\n')
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return Event{}, fmt.Errorf("the gateway has broken off its answer: %w", err)
		}
		if !bytes.HasPrefix(b, eventPrefix) {
			if line == nil {
				return Event{}, errors.New("the gateway has sent a message where none belongs")
			}
			if err := line(b); err != nil {
				return Event{}, err
			}
			continue
		}
		var e Event
		if err := json.Unmarshal(b, &e); err != nil {
			return Event{}, fmt.Errorf("the gateway has sent what is no event: %w", err)
		}
		switch {
		case e.Event == "end" && e.Error != "":
			return e, errors.New(e.Error)
		case e.Event == "end":
			return e, nil
		case event != nil:
			event(e)
		}
	}
}

// Preview is a part of a payload that is safe to print.
func Preview(m *holdfast.Message, most int) string {
	p := m.Payload
	cut := ""
	if len(p) > most {
		p, cut = p[:most], "..."
	}
	return strconv.QuoteToASCII(string(p)) + cut
}
