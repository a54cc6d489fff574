package configs

import (
	"fmt"
	"time"
)

// pingBytes is about what a keep-alive and its answer cost over TCP/IP.
const pingBytes = 116

// plans checks the data plans, and what uses them up by itself.
func (k *checker) plans() {
	type written struct {
		u    *Upstream
		line int
	}
	interfaces := map[string]written{}
	for i, m := range k.c.Modems {
		k.hard(m.DataPlan, m.DataPlanHard, fmt.Sprintf("modem[%d]", i))
	}
	for i, b := range k.c.Bridges {
		for j := range b.Upstreams {
			u := &b.Upstreams[j]
			path := fmt.Sprintf("bridge[%d].upstream[%d]", i, j)
			k.hard(u.DataPlan, u.DataPlanHard, path)
			m := k.c.ModemOf(*u)
			plan := u.DataPlan
			switch {
			case m != nil && u.DataPlan > 0:
				k.fault(path+".data_plan", "the SIM is that of modem %q; write data_plan there", m.Name)
			case m != nil:
				plan = m.DataPlan
			case u.DataPlan > 0 && u.Interface != "":
				other, again := interfaces[u.Interface]
				if again && (other.u.DataPlan != u.DataPlan || other.u.DataPlanDay != u.DataPlanDay || other.u.DataPlanHard != u.DataPlanHard) {
					k.fault(path+".data_plan", "interface %s has another plan in line %d; write one of them", quote(u.Interface), other.line)
				}
				interfaces[u.Interface] = written{u, k.line(path + ".data_plan")}
			}
			month := 30 * 24 * time.Hour
			if b.KeepAlive == Adaptive {
				continue
			}
			if idle := Size(pingBytes * int64(month/max(b.KeepAlive, time.Second))); plan > 0 && idle > plan/4 {
				k.warn(fmt.Sprintf("bridge[%d].keepalive", i), "%v costs about %d kB a month, of a data plan of %v; write a longer one, or \"adaptive\"", b.KeepAlive, idle/1000, plan)
			}
		}
	}
}

// ModemOf is the modem whose SIM an upstream goes over; nil if there is none.
func (c *Config) ModemOf(u Upstream) *Modem {
	for i := range c.Modems {
		if m := &c.Modems[i]; u.Via == m.Name && m.Name != "" || u.Via == "" && u.Interface != "" && u.Interface == m.Interface {
			return m
		}
	}
	return nil
}

// sharePlans writes the data plan of an interface of the board to every upstream
// that goes over it.
func (c *Config) sharePlans() {
	written := map[string]Upstream{}
	each := func(f func(*Upstream)) {
		for i := range c.Bridges {
			for j := range c.Bridges[i].Upstreams {
				if u := &c.Bridges[i].Upstreams[j]; u.Via == "" && u.Interface != "" {
					f(u)
				}
			}
		}
	}
	each(func(u *Upstream) {
		if u.DataPlan > 0 {
			written[u.Interface] = *u
		}
	})
	each(func(u *Upstream) {
		if w, ok := written[u.Interface]; ok {
			u.DataPlan, u.DataPlanDay, u.DataPlanHard = w.DataPlan, w.DataPlanDay, w.DataPlanHard
		}
	})
}

func (k *checker) hard(plan Size, hard bool, path string) {
	if hard && plan == 0 {
		k.fault(path+".data_plan_hard", `there is no plan; write data_plan, as in "500MB", or take this out`)
	}
}
