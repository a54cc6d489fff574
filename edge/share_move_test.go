package edge

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

func TestWhatAShareHasKeptIsMovedThoughNothingElseHasRoom(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	keeper := b.connect("keeper", durable)
	keeper.subscribe(1, jobs, 1)
	keeper.disconnect()
	work(b.connect("pub", v5), 0, 3)
	disk.set(func() { disk.full = true })
	keeper = b.connect("keeper", durable)
	if got := fmt.Sprint(take(keeper, 3)); got != "[0 1 2]" {
		t.Fatalf("received %s", got)
	}
}

// triedBox counts how often it was asked, and ends what does not end by itself.
type triedBox struct {
	Outbox
	tries *atomic.Int64
}

func (b triedBox) TryNext() (holdfast.Item, bool, error) {
	if b.tries.Add(1) > 1000 {
		return holdfast.Item{}, false, nil
	}
	return b.Outbox.TryNext()
}

func TestAShareWhoseMemberRefusesWaitsForIt(t *testing.T) {
	stories := map[string]func(*fakeDisk, *session){
		"a durable member, and a store that refuses": func(d *fakeDisk, ss *session) {
			d.fail = errDisk
			ss.durable = true
		},
		"a clean member that is full": func(_ *fakeDisk, ss *session) {
			box := newMemoryOutbox(1)
			box.push(&holdfast.Message{Topic: "x"}, false)
			ss.outbox = box
		},
	}
	for name, refuse := range stories {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newFakeDisk()
				srv, err := NewServer(Options{Sink: disk, Store: disk, Access: AnonymousLoopback, Logger: testLogger(t)})
				if err != nil {
					t.Fatal(err)
				}
				ours, theirs := net.Pipe()
				defer ours.Close()
				defer theirs.Close()
				ss, c := newSession("m", false), newConn(srv, ours)
				c.started, c.window, c.sess = true, 10, ss
				ss.outbox = newMemoryOutbox(1 << 20)
				refuse(disk, ss)
				ss.conn.Store(c)
				srv.router.subscribe(ss, holdfast.Subscription{Filter: jobs, QoS: 1})
				var tries atomic.Int64
				kept := newMemoryOutbox(1 << 20)
				for range 3 {
					kept.push(&holdfast.Message{Topic: "jobs/x", QoS: 1}, true)
				}
				srv.router.share(jobs).box = triedBox{kept, &tries}
				stopped := make(chan struct{})
				go func() {
					defer close(stopped)
					srv.moveShares()
				}()
				time.Sleep(10*shareWait + shareWait/2)
				close(srv.quit)
				<-stopped
				if n := tries.Load(); n != 11 {
					t.Errorf("it was tried %d times in a time for 11", n)
				}
				if kept.Len() != 3 {
					t.Errorf("%d messages are kept, want 3", kept.Len())
				}
			})
		})
	}
}

// shareless is a disk on which the rows of shares cannot be stored, so often.
type shareless struct {
	*fakeDisk
	times atomic.Int64
}

func (d *shareless) Change(c *holdfast.SessionChange, done func(error)) {
	if strings.HasPrefix(c.ClientID, sharePrefix) && d.times.Add(-1) >= 0 {
		done(errDisk)
		return
	}
	d.fakeDisk.Change(c, done)
}

func TestASharedSubscriptionIsGrantedOnlyWithItsQueueOnDisk(t *testing.T) {
	disk := &shareless{fakeDisk: newFakeDisk()}
	b := startBroker(t, disk.fakeDisk, func(o *Options) { o.Store = disk })
	disk.times.Store(1)
	c := b.connect("c", durable)
	p := packet.Subscribe{PacketID: 1, Filters: subsOf(jobs, 1)}
	c.send(p.Append(nil, c.v))
	c.expectEnd()
	c = b.connect("c", durable)
	c.subscribe(1, jobs, 1)
	disk.set(func() {
		if disk.sessions[sharePrefix+jobs] == nil {
			t.Error("the next SUBSCRIBE did not store the queue")
		}
		delete(disk.sessions, sharePrefix+jobs)
	})
	b.stop()
	startBroker(t, disk.fakeDisk).connect("other")
	disk.set(func() {
		if disk.sessions[sharePrefix+jobs] == nil {
			t.Error("a start did not store the queue that was not there")
		}
	})
}

func TestNobodyJoinsAShareWhileItsQueueGoes(t *testing.T) {
	for name, leave := range map[string]func(*router, *session){
		"by UNSUBSCRIBE":              func(r *router, ss *session) { r.unsubscribe(ss, jobs) },
		"with the end of the session": (*router).forget,
	} {
		t.Run(name, func(t *testing.T) {
			left := 0
			var r router
			r.left = func(*share) {
				left++
				if r.mu.TryRLock() {
					t.Error("a new member may come, whose queue would go")
				}
			}
			ss := newSession("c", true)
			sub := holdfast.Subscription{Filter: jobs, QoS: 1}
			ss.setLocked(sub)
			r.subscribe(ss, sub)
			leave(&r, ss)
			if left != 1 || r.share(jobs) != nil {
				t.Errorf("left %d times", left)
			}
		})
	}
}
