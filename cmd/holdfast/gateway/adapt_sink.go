package gateway

import (
	"holdfast"
	"holdfast/bridge"
	"holdfast/storage"
)

// sink is edge.Sink over the storage: it adds the queues of the bridges that
// want a message to the destinations that the broker found, so that all of
// them are one decision and one transaction.
type sink struct {
	store   *storage.Store
	bridges *bridges
}

func (s *sink) Accept(p *holdfast.Publication, done func(error)) error {
	var appends []storage.Append
	for _, b := range s.bridges.now().parts {
		route, lane, out, ok := b.Match(p.Msg)
		if !ok || (p.Msg.QoS == 0 && !b.takesQoS0()) {
			continue
		}
		appends = append(appends, storage.Append{Queue: b.queue, Lane: lane, Route: route, Msg: out})
	}
	p.Unrouted = len(appends) == 0
	return s.store.Publish(p, appends, done)
}

// takesQoS0 reports whether a QoS 0 message is queued now: always, or, with
// store_qos0 = false, only while there is a connection to send it on.
func (b *bridgePart) takesQoS0() bool {
	return b.cfg.Queue.StoreQoS0 || b.Status().State == bridge.Connected
}
