package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// An adaptive keep-alive finds out how long a link may be idle. A carrier's NAT
// forgets a connection that was silent for too long, without a word to either side:
// what comes down from then on is lost until something goes up. So a ping must go
// before that, and each one that goes earlier than needed costs a SIM about 120
// bytes.
//
// Every packet that is sent after silence is a probe: an answer proves that so long a
// silence is survived, and the next ping waits half as long again, up to
// maxAdaptive. A link that has died without a word after a silence is not left
// silent for that long any more: the next connection goes back at once to what was
// proven, for an hour; then the time between the two is halved until they are close.
// What has died may have died of something else, and carriers change: after a day it
// is tried again, after two if it has died again, and so on up to 16. The same goes
// for one that a proxy closes because of its silence.
//
// The far broker is told the longest silence that there may be on a connection
// (CONNECT), so it may take it that long, and half of it more, to publish the will.
// When twice as long a silence may be tried, the connection is made anew for that.
const (
	minAdaptive   = 30 * time.Second
	startAdaptive = time.Minute
	maxAdaptive   = 30 * time.Minute
	probeIdle     = 20 * time.Second // a shorter silence proves nothing
	adaptiveWait  = 45 * time.Second // for the answer to a ping
	adaptiveRest  = time.Hour        // after a death, before longer silences are tried again
	adaptiveDay   = 24 * time.Hour
	maxDoubt      = 16 // days
)

// Adaptive is what is known of one way to a far broker. It is kept over connections
// and, in its file, over restarts. It is safe for concurrent use.
type Adaptive struct {
	file string
	log  *slog.Logger

	mu    sync.Mutex
	known adaptiveRecord
	rest  time.Time     // until then nothing longer is tried
	shut  time.Duration // the silence at which a connection was last closed
}

// adaptiveRecord is what is on disk.
type adaptiveRecord struct {
	Good time.Duration `json:"good_ns"` // a silence that was survived
	Bad  time.Duration `json:"bad_ns"`  // one that was not; 0: none is known
	// Forget is when Bad is to be tried again, Days how long it is believed.
	Forget time.Time `json:"forget,omitzero"`
	Days   int       `json:"days,omitempty"`
}

// NewAdaptive goes on where file has it; "" forgets at the end of the process.
func NewAdaptive(file string, log *slog.Logger) *Adaptive {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &Adaptive{file: file, log: log, known: adaptiveRecord{Good: startAdaptive}}
	if file == "" {
		return a
	}
	r, err := readAdaptive(file)
	switch {
	case err == nil:
		a.known = r
	case !errors.Is(err, fs.ErrNotExist):
		log.Warn("what was learned of the keep-alive cannot be read: it is learned anew", slog.String("file", file), slog.Any("error", err))
	}
	return a
}

func readAdaptive(file string) (r adaptiveRecord, err error) {
	f, err := os.Open(file)
	if err != nil {
		return r, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return r, err
	}
	return parseAdaptive(raw)
}

func parseAdaptive(raw []byte) (r adaptiveRecord, err error) {
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, err
	}
	if r.Good < minAdaptive || r.Good > maxAdaptive || r.Bad != 0 && (r.Bad <= r.Good || r.Bad > 2*maxAdaptive) || r.Days < 0 || r.Days > maxDoubt || r.Bad != 0 && r.Days == 0 {
		return r, fmt.Errorf("no gateway has learned %v and %v", r.Good, r.Bad)
	}
	return r, nil
}

// interval is how long the link may be silent now.
func (a *Adaptive) interval() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, k := time.Now(), a.known
	if longest := now.Add(maxDoubt * adaptiveDay); k.Forget.After(longest) { // the clock was set back
		a.known.Forget = longest
	}
	switch {
	case now.Before(a.rest):
		return k.Good
	case k.Bad == 0:
		return min(k.Good*3/2, maxAdaptive)
	case !now.Before(k.Forget):
		return min(k.Bad, maxAdaptive)
	case k.Bad-k.Good <= max(k.Good/8, probeIdle):
		return k.Good
	}
	return k.Good + (k.Bad-k.Good)/2
}

// longest is the longest that interval may become on one connection.
func (a *Adaptive) longest() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known.Bad != 0 {
		return min(a.known.Bad.Truncate(time.Second)+time.Second, maxAdaptive) // MQTT has whole seconds
	}
	return maxAdaptive
}

// survived is a silence after which the far broker has answered.
func (a *Adaptive) survived(idle time.Duration) {
	idle = min(idle, maxAdaptive)
	a.mu.Lock()
	defer a.mu.Unlock()
	if idle <= a.known.Good {
		return
	}
	a.known.Good = idle
	if a.known.Bad != 0 && idle >= a.known.Bad { // it had died of something else, or the carrier has changed
		a.known.Bad, a.known.Days = 0, 0
	}
	a.saveLocked()
}

// died is a silence that the link has not survived.
func (a *Adaptive) died(idle time.Duration) {
	if idle < minAdaptive {
		return // no NAT is so short of memory
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now, k := time.Now(), &a.known
	switch {
	case k.Bad == 0:
		k.Bad, k.Days = idle, 1
	case idle >= k.Bad: // it was tried again
		k.Days = min(k.Days*2, maxDoubt)
	default:
		k.Bad = idle
	}
	if k.Good >= k.Bad*15/16 { // what was proven holds no more
		k.Good, k.Days = max(k.Bad/2, minAdaptive), 1
	}
	if k.Bad <= k.Good { // there is nothing below
		k.Bad = 0
	}
	k.Forget, a.rest = now.Add(time.Duration(k.Days)*adaptiveDay), now.Add(adaptiveRest)
	a.log.Info("the link has died of silence, or with it: it is not left silent for so long for a while",
		slog.Duration("silence", idle), slog.Duration("now", k.Good))
	a.saveLocked()
}

// closed is a silence in which the other side has closed the connection in order. A
// broker that is restarted does so at any time, and teaches nothing; a proxy, or a
// broker with a bound of its own, does so at the same silence each time. A silence
// that was never survived is taken for the latter at once, a shorter one at its second
// time.
func (a *Adaptive) closed(idle time.Duration) {
	if idle < minAdaptive {
		return
	}
	a.mu.Lock()
	k, again := a.known, (idle-a.shut).Abs() <= idle/16
	a.shut = idle
	a.mu.Unlock()
	if idle <= k.Good && !again {
		return
	}
	if k.Bad > idle && k.Bad-idle <= k.Bad/16 { // that one, tried again
		idle = k.Bad
	}
	a.died(idle)
}

// saveLocked writes what is known down: a dozen times in the first hours, then
// seldom.
func (a *Adaptive) saveLocked() {
	if a.file == "" {
		return
	}
	raw, err := json.Marshal(a.known)
	if err == nil {
		err = replaceFile(a.file, raw)
	}
	if err != nil {
		a.log.Debug("what was learned of the keep-alive cannot be written down", slog.Any("error", err)) // the store tells of the disk
	}
}

// errLonger ends a connection that was made for shorter silences than are known to
// live.
var errLonger = errors.New("the link lives through longer silences than before: the connection is made anew to tell the broker so (keepalive = \"adaptive\")")

// diedSilently reports whether a link has ended without a word of the far broker.
func diedSilently(err error) bool {
	return errors.Is(err, errNoPing) || errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
