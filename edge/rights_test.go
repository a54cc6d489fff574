package edge

import (
	"slices"
	"strings"
	"testing"

	"holdfast/edge/packet"
)

func v311(p *packet.Connect) { p.Version = packet.V311 }

// filtersOnDisk are the filters of a stored session, and whose it is.
func filtersOnDisk(disk *fakeDisk, id string) (filters, username string) {
	disk.mu.Lock()
	defer disk.mu.Unlock()
	var all []string
	for _, sub := range disk.sessions[id].Subscriptions {
		all = append(all, sub.Filter)
	}
	return strings.Join(all, " "), disk.sessions[id].Username
}

// queuedOnDisk is how many messages wait in a stored session.
func queuedOnDisk(disk *fakeDisk, id string) int {
	disk.mu.Lock()
	box := disk.boxes[id]
	disk.mu.Unlock()
	if box == nil {
		return 0
	}
	return box.Len()
}

func TestARightThatIsTakenAwayForAWhileLosesNothing(t *testing.T) {
	disk := newFakeDisk()
	allowed := User{Name: "a", Password: cheapHash, Subscribe: []string{"cmd/#", "jobs/#", "state"}}
	u := newUsers(t, AnonymousLoopback, allowed)
	b := startWithUsers(t, disk, u)
	login := as("a", "password")
	permit := func(filters ...string) {
		t.Helper()
		allowed.Subscribe = filters
		if err := u.Set(AnonymousLoopback, []User{allowed}); err != nil {
			t.Fatal(err)
		}
		b.srv.ReviewAccess()
	}
	a := b.connect("dev", durable, login)
	a.subscribe(1, "cmd/#", 1, jobs, 1, "state", 1)
	a.disconnect()
	p := b.connect("pub", v5)
	for _, payload := range []string{"1", "2", "3"} {
		p.publish("cmd/x", payload, 1, 1)
		p.expectAck(packet.PUBACK, 1)
	}
	work(p, 0, 3)

	permit("cmds/#", "state")
	a = b.dial()
	if !a.login("dev", durable, login) {
		t.Fatal("the session is gone")
	}
	p.publish("cmd/x", "not for it now", 1, 1)
	p.expectAck(packet.PUBACK, 1)
	work(p, 3, 1)
	p.publish("state", "on", 1, 1)
	p.expectAck(packet.PUBACK, 1)
	a.expectPublish("state", "on", 1)
	a.ack(packet.PUBACK, 4)
	a.expectNothing()
	if filters, _ := filtersOnDisk(disk, "dev"); filters != jobs+" cmd/# state" {
		t.Errorf("the session has %s on disk", filters)
	}
	if n, m := queuedOnDisk(disk, "dev"), queuedOnDisk(disk, sharePrefix+jobs); n != 3 || m != 4 {
		t.Errorf("%d messages wait in the session and %d in the share", n, m)
	}
	b.stop()
	disk.restart()
	b = startWithUsers(t, disk, u)
	permit("cmd/#", "jobs/#", "state")
	a = b.connect("dev", durable, login)
	got := take(a, 7)
	slices.Sort(got)
	if strings.Join(got, " ") != "0 1 1 2 2 3 3" {
		t.Errorf("came %q", got)
	}
	p = b.connect("pub", v5)
	p.publish("cmd/x", "again", 1, 1)
	p.expectAck(packet.PUBACK, 1)
	if got := take(a, 1); got[0] != "again" {
		t.Errorf("came %q", got)
	}
	a.expectNothing()
}

func TestARightThatComesBackReachesWhoIsConnected(t *testing.T) {
	disk := newFakeDisk()
	guest := User{Name: "a", Password: cheapHash}
	u := newUsers(t, AnonymousLoopback, everywhere("a"))
	b := startWithUsers(t, disk, u)
	login := as("a", "password")
	a := b.connect("dev", durable, login)
	a.subscribe(1, "cmd/#", 1, jobs, 1)
	a.disconnect()
	p := b.connect("pub", v5)
	p.publish("cmd/x", "kept", 1, 1)
	p.expectAck(packet.PUBACK, 1)
	work(p, 0, 1)
	if err := u.Set(AnonymousLoopback, []User{guest}); err != nil {
		t.Fatal(err)
	}
	b.srv.ReviewAccess()
	a = b.connect("dev", durable, login)
	a.expectNothing()
	b.srv.ReviewAccess() // it had no right to lose: it stays
	a.expectNothing()
	if err := u.Set(AnonymousLoopback, []User{everywhere("a")}); err != nil {
		t.Fatal(err)
	}
	b.srv.ReviewAccess()
	got := take(a, 2)
	slices.Sort(got)
	if strings.Join(got, " ") != "0 kept" {
		t.Errorf("came %q", got)
	}
}

func TestWhatIsWithheldIsBounded(t *testing.T) {
	disk := newFakeDisk()
	u := newUsers(t, AnonymousLoopback, everywhere("a"))
	b := startWithUsers(t, disk, u)
	login := as("a", "password")
	a := b.connect("dev", durable, login)
	a.subscribe(1, "cmd/#", 1)
	a.disconnect()
	p := b.connect("pub", v5)
	const n = withheldMessages + 100
	for range n {
		p.publish("cmd/x", "x", 1, 1)
		p.expectAck(packet.PUBACK, 1)
	}
	if err := u.Set(AnonymousLoopback, []User{{Name: "a", Password: cheapHash}}); err != nil {
		t.Fatal(err)
	}
	b.srv.ReviewAccess()
	a = b.connect("dev", durable, login)
	eventually(t, "some are set aside", func() bool {
		disk.mu.Lock()
		box := disk.boxes["dev"]
		disk.mu.Unlock()
		box.mu.Lock()
		defer box.mu.Unlock()
		return len(box.taken) == withheldMessages
	})
	a.expectNothing()
	if got := queuedOnDisk(disk, "dev"); got != n {
		t.Errorf("%d messages wait, want %d", got, n)
	}
	if err := u.Set(AnonymousLoopback, []User{everywhere("a")}); err != nil {
		t.Fatal(err)
	}
	b.srv.ReviewAccess()
	take(a, n)
	a.expectNothing()
}

// A client identifier is no proof: what one user's session is owed, another one
// must neither see nor end.
func TestASessionIsThatOfItsUser(t *testing.T) {
	disk := newFakeDisk()
	u := newUsers(t, AnonymousLoopback, everywhere("boss"),
		User{Name: "guest", Password: cheapHash, Subscribe: []string{"open/#"}})
	b := startWithUsers(t, disk, u)
	boss, guest := as("boss", "password"), as("guest", "password")
	s := b.connect("shared-id", durable, boss)
	s.subscribe(1, "secret", 1, "open/a", 1)
	for _, clean := range []bool{false, true} {
		set := func(p *packet.Connect) { p.CleanStart = clean }
		if a := b.dial().greet("shared-id", v311, set, guest); a.Code != packet.RefusedIdentifier {
			t.Errorf("MQTT 3.1.1: CONNACK %#x", a.Code)
		}
		if a := b.dial().greet("shared-id", v5, set, guest); a.Code != byte(packet.ClientIdentifierNotValid) {
			t.Errorf("MQTT 5: CONNACK %#x", a.Code)
		}
	}
	s.expectNothing() // it is still connected
	s.disconnect()
	p := b.connect("p")
	p.publish("secret", "for the boss", 1, 1)
	p.expectAck(packet.PUBACK, 1)
	b.stop()
	disk.restart()
	b = startWithUsers(t, disk, u)
	if a := b.dial().greet("shared-id", v311, durable, guest); a.Code != packet.RefusedIdentifier {
		t.Errorf("after a restart: CONNACK %#x", a.Code)
	}
	if n := b.srv.Stats().RefusedLogins; n != 1 {
		t.Errorf("%d refused logins were counted", n)
	}
	s = b.connect("shared-id", durable, boss)
	s.expectPublish("secret", "for the boss", 1)
	s.disconnect()
	b.connect("shared-id").disconnect() // who needs no login may do everything
	b.connect("shared-id", durable, guest)
	if _, user := filtersOnDisk(disk, "shared-id"); user != "guest" {
		t.Errorf("the session is that of %q", user)
	}
}

// Sessions from before there were users are taken over by the first of them.
func TestASessionOfNobodyGetsAnOwner(t *testing.T) {
	disk := newFakeDisk()
	u := newUsers(t, AnonymousLoopback)
	b := startWithUsers(t, disk, u)
	b.connect("dev", durable, as("a", "whatever")).subscribe(1, "x", 1)
	if _, user := filtersOnDisk(disk, "dev"); user != "" {
		t.Errorf("the session is that of %q, which nobody has proved to be", user)
	}
	if err := u.Set(AnonymousLoopback, []User{everywhere("a")}); err != nil {
		t.Fatal(err)
	}
	if c := b.dial(); !c.login("dev", durable, as("a", "password")) {
		t.Error("the session is gone")
	}
	if filters, user := filtersOnDisk(disk, "dev"); user != "a" || filters != "x" {
		t.Errorf("on disk it is that of %q, with %s", user, filters)
	}
}
