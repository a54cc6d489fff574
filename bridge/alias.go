package bridge

// aliases are the topic aliases of one connection (MQTT 5, 3.3.2.3.4): a number in
// the place of a topic that the far broker was told before. It takes few of them
// (mosquitto 10), so they belong to the topics that come often: the first to come get
// them, and one that comes aliasSeen times while the topic of an alias was not sent
// takes that over. Topics that come in turn leave them where they are: with the least
// recently used replaced at each, none would ever be of use.
type aliases struct {
	most  int
	clock uint64 // publishes
	byTop map[string]*alias
	free  []uint16
	seen  map[string]counted // topics without one, a few times as many as aliases
}

type alias struct {
	id   uint16
	last uint64 // when it was used
}

// counted is how often a topic has come since.
type counted struct {
	since uint64
	times int
}

const (
	// maxAliases is the most that are used, whatever the broker takes.
	maxAliases = 256
	aliasSeen  = 4
)

func newAliases(most int) *aliases {
	a := &aliases{most: min(most, maxAliases), byTop: map[string]*alias{}, seen: map[string]counted{}}
	for id := a.most; id > 0; id-- {
		a.free = append(a.free, uint16(id))
	}
	return a
}

// of is the alias for the next publish of a topic, 0 for none; told reports that the
// far broker knows it.
func (a *aliases) of(topic []byte) (id uint16, told bool) {
	if a == nil || a.most == 0 {
		return 0, false
	}
	a.clock++
	if have := a.byTop[string(topic)]; have != nil {
		have.last = a.clock
		return have.id, true
	}
	if len(a.free) == 0 && !a.takeOver(topic) {
		return 0, false
	}
	id = a.free[len(a.free)-1]
	a.free = a.free[:len(a.free)-1]
	a.byTop[string(topic)] = &alias{id, a.clock}
	delete(a.seen, string(topic))
	return id, false
}

// takeOver frees the alias that was not used for the longest time, if the topic has
// come often enough since.
func (a *aliases) takeOver(topic []byte) bool {
	c := a.seen[string(topic)]
	if c.times++; c.times == 1 {
		if len(a.seen) >= 4*a.most {
			clear(a.seen)
		}
		c.since = a.clock
	}
	if c.times < aliasSeen {
		a.seen[string(topic)] = c
		return false
	}
	oldest, at := "", a.clock
	for t, have := range a.byTop {
		if have.last < at {
			oldest, at = t, have.last
		}
	}
	if at >= c.since { // all are in use
		a.seen[string(topic)] = counted{a.clock, 1}
		return false
	}
	a.drop([]byte(oldest))
	return true
}

// drop forgets the alias of a topic.
func (a *aliases) drop(topic []byte) {
	if have := a.byTop[string(topic)]; have != nil {
		a.free = append(a.free, have.id)
		delete(a.byTop, string(topic))
	}
}
