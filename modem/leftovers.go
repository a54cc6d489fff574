package modem

import "holdfast"

// The most messages and bytes of them that wait for the next session.
const (
	maxLeft      = 256
	maxLeftBytes = 256 << 10
)

// leftovers are messages that the module has given, and acknowledged, while no
// session was there to take them: a firmware that repairs its connection by itself
// gets what the broker has kept before it can be told to let go. They are for the
// next session with the same login, and nobody else's. Guarded by Modem.mu.
type leftovers struct {
	of    account
	all   []*holdfast.Message
	bytes int
}

// account is whose messages they are.
type account struct {
	host, clientID string
	port           int
}

func accountOf(l Login) account { return account{l.Host, l.ClientID, l.Port} }

// keep puts msg to the leftovers, or reports that there is no room, or that there was
// no session yet.
func (m *Modem) keep(msg *holdfast.Message) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := &m.kept
	size := len(msg.Topic) + len(msg.Payload)
	if k.of == (account{}) || len(k.all) >= maxLeft || k.bytes+size > maxLeftBytes {
		return false
	}
	k.all = append(k.all, msg)
	k.bytes += size
	return true
}

// claimLocked gives the leftovers to a session with this login. Those of another
// login are discarded.
func (m *Modem) claimLocked(l Login) []*holdfast.Message {
	k := m.kept
	m.kept = leftovers{of: accountOf(l)}
	if k.of == m.kept.of {
		return k.all
	}
	if len(k.all) > 0 {
		m.status.Counters.ReceivedMsgs -= uint64(len(k.all))
		m.status.Counters.Discarded += uint64(len(k.all))
		m.log.Warn("messages of another login discarded", "messages", len(k.all))
	}
	return nil
}
