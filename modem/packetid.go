package modem

import (
	"slices"
	"sync"
)

// packetIDs gives out packet identifiers. They go round over the sessions of
// the process: a broker that keeps a session takes a new QoS 2 message for a
// repeated one if its identifier is that of an unfinished one (MQTT 3.1.1,
// 4.3.3), and this firmware cannot finish it.
type packetIDs struct {
	mu      sync.Mutex
	last    uint16
	avoided []uint16 // unfinished, oldest first, at most maxAvoided
}

const maxAvoided = 1024

// take returns the next identifier that is neither in use nor avoided.
func (p *packetIDs) take(inUse func(uint16) bool) uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		p.last++
		if p.last != 0 && !inUse(p.last) && !slices.Contains(p.avoided, p.last) {
			return p.last
		}
	}
}

// avoid keeps id out of use.
func (p *packetIDs) avoid(id uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.avoided) == maxAvoided {
		p.avoided = slices.Delete(p.avoided, 0, 1)
	}
	p.avoided = append(p.avoided, id)
}

// forget gives all identifiers free: the broker has dropped the session.
func (p *packetIDs) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.avoided = nil
}
