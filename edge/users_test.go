package edge

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"holdfast"
	"holdfast/edge/packet"
	"holdfast/edge/password"
)

// Two hashes of "password", which are cheap.
const (
	cheapHash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	otherHash = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"
)

func newUsers(t *testing.T, a Anonymous, users ...User) *Users {
	t.Helper()
	u, err := NewUsers(a, users)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func everywhere(name string) User {
	return User{Name: name, Password: cheapHash, Publish: []string{"#"}, Subscribe: []string{"#"}}
}

// as logs in with a name and a password; "" is none.
func as(username, password string) func(*packet.Connect) {
	return func(p *packet.Connect) {
		p.Username, p.HasUsername = username, true
		p.Password, p.HasPassword = []byte(password), password != ""
	}
}

func startWithUsers(t *testing.T, disk *fakeDisk, u *Users, tweak ...func(*Options)) *bench {
	t.Helper()
	return startBroker(t, disk, append(tweak, func(o *Options) { o.Access = u })...)
}

func TestWhoMayLogIn(t *testing.T) {
	t.Parallel()
	users := []User{everywhere("pump"), {Name: "card", Publish: []string{"#"}}}
	const here, there = "127.0.0.1:5", "192.0.2.1:5"
	for name, tc := range map[string]struct {
		anonymous Anonymous
		users     []User
		login     Login
		code      packet.ReasonCode
	}{
		"the right password":               {AnonymousNever, users, Login{Username: "pump", Password: []byte("password"), Remote: there}, 0},
		"a wrong password":                 {AnonymousAlways, users, Login{Username: "pump", Password: []byte("Password"), Remote: here}, packet.BadUserNameOrPassword},
		"no password":                      {AnonymousAlways, users, Login{Username: "pump", Remote: here}, packet.BadUserNameOrPassword},
		"a user that there is not":         {AnonymousAlways, users, Login{Username: "Pump", Password: []byte("password"), Remote: here}, packet.BadUserNameOrPassword},
		"a user without a password":        {AnonymousAlways, users, Login{Username: "card", Remote: here}, packet.BadUserNameOrPassword},
		"nobody, from here":                {AnonymousLoopback, users, Login{Remote: here}, 0},
		"nobody, from there":               {AnonymousLoopback, users, Login{Remote: there}, packet.NotAuthorized},
		"nobody, where nobody may":         {AnonymousNever, users, Login{Remote: here}, packet.NotAuthorized},
		"a name, where there are no users": {AnonymousLoopback, nil, Login{Username: "x", Password: []byte("y"), Remote: here}, 0},
		"a certificate":                    {AnonymousNever, users, Login{Username: "card", Certified: true, Remote: there}, 0},
		"a certificate of a stranger":      {AnonymousAlways, users, Login{Username: "x", Certified: true, Remote: here}, packet.NotAuthorized},
		"a certificate without a name":     {AnonymousAlways, users, Login{Certified: true, Remote: here}, packet.NotAuthorized},
		"a certificate, without any users": {AnonymousNever, nil, Login{Username: "x", Certified: true, Remote: there}, 0},
	} {
		u := newUsers(t, tc.anonymous, tc.users...)
		var code packet.ReasonCode
		if _, err := u.Connect(&tc.login, nil); err != nil {
			code = err.(*Refusal).Code
		}
		if code != tc.code {
			t.Errorf("%s: %v, want %v", name, code, tc.code)
		}
	}
	for _, bad := range [][]User{{everywhere("a"), everywhere("a")}, {{Name: "a", Password: "plain"}}} {
		if _, err := NewUsers(AnonymousNever, bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

func TestRefusedLoginsAreToldAndLoggedWithoutThePassword(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	b := startWithUsers(t, newFakeDisk(), newUsers(t, AnonymousNever, everywhere("pump")), func(o *Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		c := b.dial()
		a := c.greet("c", func(p *packet.Connect) { p.Version = v }, as("pump", "hunter2"))
		if want := byte(packet.RefusedBadLogin); v != packet.V5 && a.Code != want {
			t.Errorf("return code %d, want %d", a.Code, want)
		}
		if v == packet.V5 && (a.Code != byte(packet.BadUserNameOrPassword) || a.Properties != nil && a.Properties.ReasonString != "") {
			t.Errorf("CONNACK %+v: who guesses is told more than that it was wrong", a)
		}
		c.expectEnd()
	}
	b.connect("d", as("pump", "password"))
	eventually(t, "the log tells it", func() bool { return strings.Contains(log.String(), `wrong password of user \"pump\"`) })
	if text := log.String(); strings.Contains(text, "hunter2") || strings.Contains(text, "argon2id") {
		t.Errorf("the log has a secret: %s", text)
	}
	if n := b.srv.Stats().RefusedLogins; n != 3 {
		t.Errorf("%d refused logins were counted", n)
	}
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestPatternsStayWithinTheirUser(t *testing.T) {
	for name, tc := range map[string]struct {
		username, clientID string
		patterns, want     []string
	}{
		"both names":              {"u1", "c1", []string{"a/%u/#", "%c/x-%u", "+/b"}, []string{"a/u1/#", "c1/x-u1", "+/b"}},
		"a wildcard for a level":  {"u1", "+", []string{"a/%c/b", "c"}, []string{"c"}},
		"a wildcard for the rest": {"#", "c", []string{"a/%u"}, nil},
		"several levels":          {"u", "a/b", []string{"x/%c/#"}, nil},
		"what the broker says":    {"u", "$SYS", []string{"%c/#", "a/%c"}, []string{"a/$SYS"}},
		"a name within a name":    {"%c", "c", []string{"a/%u"}, []string{"a/%c"}},
		"half a level":            {"u", "+", []string{"a%c/b"}, nil},
	} {
		got := filled(tc.patterns, &Login{Username: tc.username, ClientID: tc.clientID})
		if strings.Join(got, " ") != strings.Join(tc.want, " ") {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestAUserStaysWithinItsTopics(t *testing.T) {
	disk := newFakeDisk()
	u := newUsers(t, AnonymousLoopback, User{Name: "pump", Password: cheapHash,
		Publish: []string{"out/%u/#"}, Subscribe: []string{"in/%c/#", "state/+"}})
	b := startWithUsers(t, disk, u)
	pump := as("pump", "password")
	c := b.connect("p1", v5, pump)
	c.publish("out/pump/a", "x", 1, 1)
	c.expectCode(packet.PUBACK, 1, packet.Success)
	for _, denied := range []string{"out/other/a", "in/p1/a", "out"} {
		c.publish(denied, "x", 1, 2)
		c.expectCode(packet.PUBACK, 2, packet.NotAuthorized)
	}
	c.publish("in/p1/a", "x", 1, 3, having(packet.Properties{TopicAlias: 1}))
	c.expectCode(packet.PUBACK, 3, packet.NotAuthorized)
	c.publish("", "x", 1, 4, having(packet.Properties{TopicAlias: 1}))
	c.expectCode(packet.PUBACK, 4, packet.NotAuthorized)
	var codes []byte
	for i, f := range []string{"in/p1/#", "in/p1/+/b", "state/a", "in/+/#", "#", "state/#", "$share/g/in/p1/a", "$share/g/in/p2/a", "out/pump/a"} {
		codes = append(codes, c.subscribe5(uint16(i+1), holdfast.Subscription{Filter: f})...)
	}
	if want := "\x00\x00\x00\x87\x87\x87\x00\x87\x87"; string(codes) != want {
		t.Errorf("SUBACK codes %x, want %x", codes, want)
	}
	c.disconnect()
	if a := b.dial().greet("p2", pump, withWill("in/p1/x", "x", 0, false)); a.Code != byte(packet.NotAuthorized) {
		t.Errorf("a will for a topic of others: %#x", a.Code)
	}
	b.connect("p2", pump, withWill("out/pump/x", "x", 0, false))
}

func TestRetainedMessagesAreForThoseWhoMay(t *testing.T) {
	u := newUsers(t, AnonymousLoopback, User{Name: "guest", Password: cheapHash, Subscribe: []string{"open/#"}})
	b := startWithUsers(t, newFakeDisk(), u)
	p := b.connect("p")
	for i, topic := range []string{"open/a", "secret"} {
		p.publish(topic, "x", 1, uint16(i+1), retaining)
		p.expectAck(packet.PUBACK, uint16(i+1))
	}
	g := b.connect("g", v5, as("guest", "password"))
	if codes := g.subscribe5(1, holdfast.Subscription{Filter: "secret"}, holdfast.Subscription{Filter: "open/#"}); string(codes) != "\x87\x00" {
		t.Fatalf("SUBACK %x", codes)
	}
	g.expectPublish("open/a", "x", 0)
	g.expectNothing()
}

func TestAChangeOfAccessReachesThoseWhoAreConnected(t *testing.T) {
	disk := newFakeDisk()
	u := newUsers(t, AnonymousLoopback, everywhere("a"), everywhere("b"), everywhere("c"), everywhere("d"), everywhere("e"))
	b := startWithUsers(t, disk, u)
	connect := func(name string, set ...func(*packet.Connect)) *client {
		return b.connect(name, append(set, v5, as(name, "password"))...)
	}
	removed, changed, narrowed, unsubscribed := connect("a"), connect("b"), connect("c"), connect("d", lasting(60))
	untouched, nobody := connect("e"), b.connect("nobody", v5)
	unsubscribed.subscribe5(1, holdfast.Subscription{Filter: "x/#"}, holdfast.Subscription{Filter: "y"})
	untouched.subscribe5(1, holdfast.Subscription{Filter: "x/#"})
	narrowed.subscribe5(1, holdfast.Subscription{Filter: "y"})
	if err := u.Set(AnonymousNever, []User{
		{Name: "b", Password: otherHash, Publish: []string{"#"}},
		{Name: "c", Password: cheapHash, Publish: []string{"y"}, Subscribe: []string{"y"}},
		{Name: "d", Password: cheapHash, Subscribe: []string{"y"}},
		everywhere("e"),
	}); err != nil {
		t.Fatal(err)
	}
	b.srv.ReviewAccess()
	for _, c := range []*client{removed, changed, unsubscribed, nobody} {
		c.expectDisconnect(packet.NotAuthorized)
	}
	narrowed.publish("x/1", "x", 1, 1)
	narrowed.expectCode(packet.PUBACK, 1, packet.NotAuthorized)
	narrowed.publish("y", "for c", 0, 0)
	narrowed.expectPublish("y", "for c", 0)
	untouched.publish("x/1", "for e", 0, 0)
	untouched.expectPublish("x/1", "for e", 0)
	// It comes back without what it may not have any more.
	again := connect("d", lasting(60))
	untouched.publish("x/1", "for e", 0, 0)
	untouched.expectPublish("x/1", "for e", 0)
	untouched.publish("y", "for d", 0, 0)
	again.expectPublish("y", "for d", 0)
	connect("b")
	if a := b.dial().greet("nobody"); a.Code != byte(packet.NotAuthorized) {
		t.Errorf("CONNACK %#x", a.Code)
	}
}

func TestAWillThatMayNotBePublishedAnyMoreIsNot(t *testing.T) {
	disk := newFakeDisk()
	u := newUsers(t, AnonymousLoopback, everywhere("a"))
	b := startWithUsers(t, disk, u)
	s := b.connect("s")
	s.subscribe(1, "#", 0)
	c := b.connect("c", as("a", "password"), withWill("w", "x", 1, false))
	if err := u.Set(AnonymousLoopback, []User{{Name: "a", Password: cheapHash, Publish: []string{"other"}}}); err != nil {
		t.Fatal(err)
	}
	b.srv.ReviewAccess()
	c.expectNothing()
	c.nc.Close()
	eventually(t, "the client is gone", func() bool { return b.srv.Stats().Clients == 1 })
	s.expectNothing()
	if wills, _ := disk.Wills(); len(wills) != 0 {
		t.Errorf("wills %v are on disk", wills)
	}
}

// accessInBetween changes while a client logs in.
type accessInBetween struct {
	Access
	during func()
}

func (a accessInBetween) Connect(l *Login, stop <-chan struct{}) (Rights, error) {
	r, err := a.Access.Connect(l, stop)
	a.during()
	return r, err
}

func TestAWillThatWaitsIsNotPublishedWithoutTheRight(t *testing.T) {
	t.Parallel()
	onDisk := func(disk *fakeDisk) int {
		wills, _ := disk.Wills()
		return len(wills)
	}
	for name, set := range map[string][]func(*packet.Connect){
		"for its delay": {v5, lasting(60), withWill("w", "x", 1, false), func(p *packet.Connect) {
			p.Will.Properties = &packet.Properties{WillDelay: 1}
		}},
		"for room": {withWill("w", "x", 1, false)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := newFakeDisk()
			u := newUsers(t, AnonymousLoopback, everywhere("a"))
			b := startWithUsers(t, disk, u)
			s := b.connect("s")
			s.subscribe(1, "#", 0)
			c := b.connect("c", append(set, as("a", "password"))...)
			disk.set(func() { disk.refuse = holdfast.ErrFull })
			c.nc.Close()
			eventually(t, "the client is gone", func() bool { return b.srv.Stats().Clients == 1 })
			if onDisk(disk) != 1 {
				t.Fatal("the will does not wait")
			}
			if err := u.Set(AnonymousLoopback, []User{{Name: "a", Password: cheapHash, Publish: []string{"other"}}}); err != nil {
				t.Fatal(err)
			}
			b.srv.ReviewAccess()
			disk.set(func() { disk.refuse = nil })
			eventually(t, "the will is gone", func() bool { return onDisk(disk) == 0 })
			s.expectNothing()
		})
	}
}

func TestAChangeOfAccessDuringALoginCounts(t *testing.T) {
	u := newUsers(t, AnonymousNever, everywhere("a"))
	var b *bench
	b = startBroker(t, newFakeDisk(), func(o *Options) {
		o.Access = accessInBetween{u, func() {
			u.Set(AnonymousNever, nil)
			b.srv.ReviewAccess()
		}}
	})
	if a := b.dial().greet("c", as("a", "password")); a.Code != byte(packet.NotAuthorized) {
		t.Errorf("CONNACK %#x", a.Code)
	}
}

func TestWhoIsRemovedPublishesNothingMore(t *testing.T) {
	disk := newFakeDisk()
	u := newUsers(t, AnonymousLoopback, everywhere("a"), everywhere("b"))
	b := startWithUsers(t, disk, u)
	s := b.connect("s")
	s.subscribe(1, "#", 0)
	c := b.connect("c", as("a", "password"), withWill("w", "the will of who was removed", 1, false))
	conn := connOf(b, "c")
	if err := u.Set(AnonymousLoopback, []User{everywhere("b")}); err != nil {
		t.Fatal(err)
	}
	b.srv.ReviewAccess()
	if conn.mayPublish("x") {
		t.Error("what is in its read buffer would still be published")
	}
	c.expectEnd()
	eventually(t, "the client is gone", func() bool { return b.srv.Stats().Clients == 1 })
	s.expectNothing()
	if wills, _ := disk.Wills(); len(wills) != 0 {
		t.Errorf("wills %v are on disk", wills)
	}
}

// connOf is the connection of a client.
func connOf(b *bench, id string) *conn {
	b.srv.mu.Lock()
	defer b.srv.mu.Unlock()
	return b.srv.sessions[id].conn.Load()
}

// turning is an Access whose Review gives what the test tells it to.
type turning struct {
	Access
	reviews chan Rights
	asked   chan struct{}
}

func (a turning) Review(*Login, Rights) (Rights, error) {
	a.asked <- struct{}{}
	return <-a.reviews, nil
}

func TestTheLastReviewCounts(t *testing.T) {
	access := turning{AnonymousLoopback, make(chan Rights, 1), make(chan struct{}, 2)}
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Access = access })
	b.connect("c")
	c := connOf(b, "c")
	done := make(chan struct{}, 2)
	review := func() { c.review(); done <- struct{}{} }
	go review()
	<-access.asked
	// While the first has not got its answer the second does not ask.
	if c.reviewing.TryLock() {
		t.Error("another review would cross this one")
	}
	go review()
	access.reviews <- nil
	<-access.asked
	access.reviews <- noRights{}
	<-done
	<-done
	if c.mayPublish("x") {
		t.Error("the older answer came last")
	}
}

func TestManyDevicesOfOneUserNeedOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsers(t, AnonymousNever, everywhere("pump"))
		u.logins.turn <- struct{}{} // somebody else is being looked at
		const devices = 3 * loginsWaiting
		var in, refused atomic.Int32
		for range devices {
			go func() {
				if _, err := u.Connect(&Login{Username: "pump", Password: []byte("password"), Remote: "192.0.2.1:5"}, nil); err != nil {
					refused.Add(1)
					return
				}
				in.Add(1)
			}()
		}
		synctest.Wait()
		if n := u.logins.waiting; n != 1 {
			t.Errorf("%d logins wait for their turn", n)
		}
		<-u.logins.turn
		synctest.Wait()
		if in.Load() != devices || refused.Load() != 0 || len(u.looks) != 0 {
			t.Errorf("%d are in, %d were refused, %d looks go on", in.Load(), refused.Load(), len(u.looks))
		}
	})
}

func TestALoginThatEndsLeavesItsLookToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsers(t, AnonymousNever, everywhere("pump"))
		u.logins.turn <- struct{}{}
		connect := func(stop chan struct{}, to chan error) {
			_, err := u.Connect(&Login{Username: "pump", Password: []byte("password"), Remote: "192.0.2.1:5"}, stop)
			to <- err
		}
		first, second := make(chan error, 1), make(chan error, 1)
		stop, never := make(chan struct{}), make(chan struct{})
		go connect(stop, first)
		synctest.Wait()
		go connect(never, second)
		synctest.Wait()
		close(stop)
		if err := <-first; !errors.Is(err, errLoginStopped) {
			t.Error(err)
		}
		<-u.logins.turn
		if err := <-second; err != nil {
			t.Error(err)
		}
	})
}

func TestWhoIsMissingCostsAsMuchAsTheDearest(t *testing.T) {
	u := newUsers(t, AnonymousNever, everywhere("a"), User{Name: "card"})
	a, err := password.Parse(cheapHash)
	if err != nil {
		t.Fatal(err)
	}
	decoy := u.list.Load().nobody
	if decoy.Cost() != a.Cost() || decoy.Matches([]byte("password")) {
		t.Errorf("cost %d, want %d; or it matches", decoy.Cost(), a.Cost())
	}
	if n := newUsers(t, AnonymousNever).list.Load().nobody; n.Cost() == 0 {
		t.Error("without a user with a password it costs nothing")
	}
}

func TestWhatIsDeniedDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	b := startWithUsers(t, newFakeDisk(), newUsers(t, AnonymousLoopback, User{Name: "a", Password: cheapHash}), func(o *Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	c, d := b.connect("c", v5, as("a", "password")), b.connect("d", v5, as("a", "password"))
	many := make([]holdfast.Subscription, 100)
	for i := range many {
		many[i].Filter = strings.Repeat("x", i+1)
	}
	c.subscribe5(1, many...)
	if text := log.String(); strings.Count(text, "denied") != 1 || !strings.Contains(text, "count=100") {
		t.Errorf("one SUBSCRIBE gave %s", text)
	}
	for range 2 * refusedLogged {
		c.subscribe5(1, many[0])
	}
	if n := strings.Count(log.String(), "subscription denied"); n != refusedLogged {
		t.Errorf("%d lines on denied subscriptions, want %d", n, refusedLogged)
	}
	for range 3 {
		for _, c := range []*client{c, d} {
			c.publish("t", "x", 1, 1)
			c.expectCode(packet.PUBACK, 1, packet.NotAuthorized)
		}
	}
	if n := strings.Count(log.String(), "publish denied"); n != 2 {
		t.Errorf("%d lines on denied publishes, want one a connection", n)
	}
}
