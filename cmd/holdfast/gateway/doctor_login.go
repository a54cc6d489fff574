package gateway

import (
	"context"
	"errors"
	"fmt"

	"holdfast"
	"holdfast/bridge"
	"holdfast/configs"
	"holdfast/modem"
)

// What waits for a bridge at the far broker waits in the session of its client_id.
// The doctor hands nothing to anybody, so it must not acknowledge any of that: it
// logs in with another client_id, and a session that ends with the connection. To
// brokers that go by the beginning of a client_id it is the same.
const doctorSuffix = "-doctor"

// doctorsOwn is the login of the doctor.
func doctorsOwn(b configs.Bridge, u configs.Upstream) (configs.Bridge, configs.Upstream) {
	u.ClientID = clientID(b, u) + doctorSuffix
	b.CleanSession = true
	return b, u
}

// keepNothing is a Receive of messages that stay at the far broker.
func keepNothing(*holdfast.Message, bool, func()) {}

// login logs in as the doctor. Where the broker refuses that, it tries whether it
// takes the bridge's own login: over our own client, which acknowledges nothing
// behind our back, and for a moment. up is nil then, and nothing more can be tried.
func (d *doctor) login(ctx context.Context, b configs.Bridge, u configs.Upstream, socket bool, receive bridge.Receive) (up bridge.Upstream, found string, err error) {
	ownB, ownU := doctorsOwn(b, u)
	up, refusal := d.g.throughModem(d.m, ownB, ownU, nil, false)(ctx, receive)
	if refusal == nil {
		return up, fmt.Sprintf("as %s; the session of %s is left alone", ownU.ClientID, clientID(b, u)), nil
	}
	var byModule *modem.RefusedError
	if socket && ctx.Err() == nil && !errors.As(refusal, &byModule) {
		if err := d.bridgeLogin(ctx, b, u); err == nil {
			return nil, fmt.Sprintf("as %s; the broker does not take %s, so nothing is subscribed to or published: what waits in the session of the bridge is left to it",
				clientID(b, u), ownU.ClientID), nil
		}
	}
	return nil, "", d.compare(ctx, ownB, ownU, socket, refusal)
}

// bridgeLogin logs in as the bridge does, and ends that connection at once. A
// session that is found there stays as it is. One that is made by this is removed
// again: the bridge has to be told that the one before was lost.
func (d *doctor) bridgeLogin(ctx context.Context, b configs.Bridge, u configs.Upstream) error {
	up, err := d.g.overNetwork(b, u, nil, false, d.m.DialContext)(ctx, keepNothing)
	if err != nil {
		return err
	}
	up.Close()
	if s, ok := up.(interface{ SessionPresent() bool }); ok && s.SessionPresent() || b.CleanSession {
		return nil
	}
	b.CleanSession = true
	if up, err = d.g.overNetwork(b, u, nil, false, d.m.DialContext)(ctx, keepNothing); err == nil {
		up.Close()
	}
	return err
}
