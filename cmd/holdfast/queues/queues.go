// Package queues lets people look into the queues of a gateway and take them
// apart: an HTTP API over the store, and its client. The client is used in the
// same way on a running gateway, over its unix socket, and on the data folder of
// one that does not run, over a server in the same process.
package queues

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast"
	"holdfast/storage"
)

// Info is one line of the list of queues.
type Info struct {
	// Queue is the name that the other commands take: that of a bridge, or
	// session/CLIENT.
	Queue       string           `json:"queue"`
	Session     bool             `json:"session,omitempty"`
	Retired     bool             `json:"retired,omitempty"` // not in the configuration
	Depth       int64            `json:"depth"`
	Bytes       int64            `json:"bytes"`
	Oldest      *time.Time       `json:"oldest_received,omitempty"`
	Lanes       map[string]int64 `json:"lanes"`
	Quarantined int              `json:"quarantined"` // messages that are kept aside
	Busy        string           `json:"busy,omitempty"`
}

// Aside is one message in quarantine.
type Aside struct {
	ID       string     `json:"id"` // lane and position: normal-17
	Reason   string     `json:"reason"`
	Since    *time.Time `json:"since,omitempty"`
	Route    string     `json:"route,omitempty"`
	Topic    string     `json:"topic"`
	QoS      byte       `json:"qos"`
	Size     int        `json:"size"` // of the payload, in bytes
	Received *time.Time `json:"received,omitempty"`
}

// Changed is the answer to a change.
type Changed struct {
	Messages uint64 `json:"messages"`
	// InFlight and Left are what a purge did not take: storage.Purged.
	InFlight uint64 `json:"in_flight,omitempty"`
	Left     uint64 `json:"left,omitempty"`
	// Error is why it ended early; Messages were changed nevertheless.
	Error string `json:"error,omitempty"`
}

// bridgePrefix begins the name of a bridge's queue in the store.
const bridgePrefix = "bridge/"

const sessionPrefix = "session/"

// Server serves the API of one store.
type Server struct {
	store   *storage.Store
	bridges func() []string // in the configuration
}

// NewServer makes the API of a store. The queues of all bridges must be open,
// those of retired ones too; bridges names those that are not retired.
func NewServer(store *storage.Store, bridges func() []string) *Server {
	return &Server{store: store, bridges: bridges}
}

// Reads is what anybody may ask who may see the status.
func (s *Server) Reads() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/queues", s.list)
	return mux
}

// All shows payloads and changes queues: it is for the owner of the data folder.
func (s *Server) All() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/queues", s.list)
	mux.HandleFunc("GET /api/v1/queues/peek", s.peek)
	mux.HandleFunc("POST /api/v1/queues/export", s.export)
	mux.HandleFunc("POST /api/v1/queues/import", s.importLines)
	mux.HandleFunc("POST /api/v1/queues/purge", s.purge)
	mux.HandleFunc("GET /api/v1/queues/quarantine", s.quarantine)
	mux.HandleFunc("POST /api/v1/queues/quarantine/retry", s.unquarantine((*storage.Queue).Retry))
	mux.HandleFunc("POST /api/v1/queues/quarantine/drop", s.unquarantine((*storage.Queue).Discard))
	return mux
}

// problem is what the API answers beside a status that is not 200.
type problem struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem{err.Error()})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client is gone
}

// status fits an error of the store.
func status(err error) int {
	switch {
	case errors.Is(err, storage.ErrBusy), errors.Is(err, holdfast.ErrFull):
		return http.StatusConflict
	case errors.Is(err, storage.ErrNotThere):
		return http.StatusNotFound
	}
	return http.StatusServiceUnavailable
}

// find is the queue that a request names. session says whether it may be that
// of a session: these belong to their clients, who count on what is in them.
func (s *Server) find(w http.ResponseWriter, r *http.Request, session bool) *storage.Queue {
	name := r.URL.Query().Get("queue")
	if q, ok := s.store.Find(bridgePrefix+strings.TrimPrefix(name, bridgePrefix), false); ok {
		return q
	}
	client, isSession := strings.CutPrefix(name, sessionPrefix)
	if q, ok := s.store.Find(client, true); ok && isSession {
		if session {
			return q
		}
		refuse(w, http.StatusForbidden, fmt.Errorf("%s is the queue of a client's session: it can be looked at (peek, export --keep), and is emptied by its client", name))
		return nil
	}
	var names []string
	for _, n := range s.store.Names() {
		names = append(names, strings.TrimPrefix(n, bridgePrefix))
	}
	have := "there is none of a bridge"
	if len(names) > 0 {
		have = "there are: " + strings.Join(names, ", ")
	}
	refuse(w, http.StatusNotFound, fmt.Errorf("there is no queue %q; %s (and session/CLIENT)", name, have))
	return nil
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	list := []Info{}
	for _, q := range s.store.Queues() {
		info := Info{
			Queue: strings.TrimPrefix(q.Name, bridgePrefix), Depth: q.Depth, Bytes: q.Bytes,
			Quarantined: q.Quarantined, Busy: q.Busy, Lanes: map[string]int64{},
			Oldest: timeOf(q.OldestReceived),
		}
		if q.Session {
			info.Session, info.Queue = true, sessionPrefix+q.Name
		} else {
			info.Retired = !slices.Contains(s.bridges(), info.Queue)
		}
		for lane, n := range q.Lanes {
			info.Lanes[holdfast.Lane(lane).String()] = n
		}
		list = append(list, info)
	}
	answer(w, list)
}

func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// lanes reads the parameter of that name; all if it is empty.
func lanes(name string) (holdfast.Lanes, error) {
	var l Line
	if name == "" {
		return holdfast.AllLanes, nil
	}
	err := l.setLane(name)
	return 1 << l.Lane, err
}

// peek answers with the first messages, as lines of an export.
func (s *Server) peek(w http.ResponseWriter, r *http.Request) {
	q := s.find(w, r, true)
	if q == nil {
		return
	}
	set, err := lanes(r.URL.Query().Get("lane"))
	n, nerr := strconv.Atoi(r.URL.Query().Get("n"))
	if err = errors.Join(err, nerr); err != nil || n < 1 {
		refuse(w, http.StatusBadRequest, fmt.Errorf("lane or n: %v", err))
		return
	}
	out := newStream(w)
	_, err = q.Peek(r.Context(), set, func(seen storage.Seen) bool {
		n--
		return out.line(seen) == nil && n > 0
	})
	out.end(Event{}, err)
}

func (s *Server) purge(w http.ResponseWriter, r *http.Request) {
	q := s.find(w, r, false)
	if q == nil {
		return
	}
	var before time.Time
	if age := r.URL.Query().Get("older_than"); age != "" {
		d, err := time.ParseDuration(age)
		if err != nil || d < 0 {
			refuse(w, http.StatusBadRequest, fmt.Errorf("older_than: %q is no duration", age))
			return
		}
		before = time.Now().Add(-d)
	}
	p, err := q.Purge(r.Context(), before)
	done(w, Changed{Messages: p.Dropped, InFlight: p.InFlight, Left: p.Left}, err)
}

// done answers a change that may have come to an end early.
func done(w http.ResponseWriter, c Changed, err error) {
	if err != nil && c.Messages == 0 {
		refuse(w, status(err), err)
		return
	}
	if err != nil {
		c.Error = err.Error()
	}
	answer(w, c)
}

func (s *Server) quarantine(w http.ResponseWriter, r *http.Request) {
	q := s.find(w, r, true)
	if q == nil {
		return
	}
	list := []Aside{}
	err := q.Quarantined(func(a storage.Quarantined) bool {
		list = append(list, Aside{
			ID: fmt.Sprintf("%v-%d", a.ID.Lane(), a.ID.Position()), Reason: a.Reason, Since: timeOf(a.Since), Route: a.Route,
			Topic: a.Msg.Topic, QoS: a.Msg.QoS, Size: len(a.Msg.Payload), Received: timeOf(a.Msg.Received),
		})
		return true
	})
	if err != nil {
		refuse(w, status(err), err)
		return
	}
	answer(w, list)
}

func (s *Server) unquarantine(do func(*storage.Queue, ...holdfast.ItemID) (int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := s.find(w, r, false)
		if q == nil {
			return
		}
		var ids []holdfast.ItemID
		for _, text := range r.URL.Query()["id"] {
			id, err := parseID(text)
			if err != nil {
				refuse(w, http.StatusBadRequest, err)
				return
			}
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		if all := r.URL.Query().Get("all") != ""; all == (len(ids) > 0) {
			refuse(w, http.StatusBadRequest, errors.New("which messages? Give their id, or all"))
			return
		}
		n, err := do(q, ids...)
		done(w, Changed{Messages: uint64(n)}, err)
	}
}

// parseID reads the ID of an Aside.
func parseID(text string) (holdfast.ItemID, error) {
	lane, number, _ := strings.Cut(text, "-")
	set, err := lanes(lane)
	pos, perr := strconv.ParseUint(number, 10, 60)
	if err != nil || perr != nil || lane == "" {
		return 0, fmt.Errorf("%q is no message in quarantine: they are named like normal-17; holdfast queue quarantine ls lists them", text)
	}
	for l := range holdfast.Lane(holdfast.LaneCount) {
		if set.Has(l) {
			return holdfast.NewItemID(l, pos), nil
		}
	}
	return 0, nil
}
