/*
 * The subnet administrator as core's clients ask it: the groups of a port, and whose answers count.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { MadAddress } from '../../../src/core/driver-contract.ts'
import { raisePort } from '../../../src/core/events/events.ts'
import { createCore, register } from '../../../src/core/index.ts'
import type { Device } from '../../../src/core/model.ts'
import { SubnetAdministrator } from '../../../src/services/ib-sa/administrator.ts'
import { broadcastGid, groupGid, isGivenGid } from '../../../src/services/ib-sa/group-gid.ts'
import { PortGroups } from '../../../src/services/ib-sa/groups.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { MadMethod } from '../../../src/spec/wire/management.ts'
import { JoinState, SaMethod, SaStatus } from '../../../src/spec/wire/subnet.ts'
import { addressText, mappedIpv4 } from '../../../src/transport/wire/address.ts'
import { type SaRecord, saCodec, saCodecs } from '../../../src/transport/wire/mad/subnet.ts'
import { describeDevice } from '../../core/fixture.ts'

type Record = SaRecord<'MCMemberRecord'>

const LID = 2
const SM_LID = 1
const ENETRESET = 102
const { FULL, SEND_ONLY_FULL } = JoinState
const { SET } = MadMethod
const { DELETE } = SaMethod

const portWithManager = (): Device => {
  const device = register(createCore(), describeDevice('mlx5_0')) as Device
  Object.assign(device.ports[0]!.attributes, { lid: LID, smLid: SM_LID, smSl: 0 })
  device.ports[0]!.gids.entries[0] = { gid: Uint8Array.of(0xfe, 0x80, ...new Uint8Array(13), 1), type: 0, ifindex: 0 }
  return device
}

const group = (last: number): Uint8Array => groupGid(mappedIpv4(Uint8Array.of(239, 0, 0, last), 0), 0xffff)

/** A port's groups, with queries that the test answers. */
const groupsOf = () => {
  const device = portWithManager()
  const open: { readonly method: number; readonly record: Partial<Record>; done(answer: Record | number): void }[] = []
  const administrator = {
    ask: (query: { method: number; record: Partial<Record> }, done: (answer: Record | number) => void) => {
      open.push({ method: query.method, record: query.record, done })
      return () => {}
    },
  }
  const groups = new PortGroups(device, administrator as unknown as SubnetAdministrator)
  const empty = saCodecs.MCMemberRecord.parse(new Uint8Array(saCodecs.MCMemberRecord.bytes))
  return {
    device,
    groups,
    open,
    /** Answers the only open query; returns its method and join state. */
    answer(answer?: number): (number | undefined)[] {
      assert.equal(open.length, 1)
      const { method, record, done } = open.pop()!
      done(answer ?? { ...empty, ...record, mlid: 0xc001 })
      return [method, record.joinState]
    },
    join(mgid: Uint8Array, joinState: number, qkey = 1) {
      const outcomes: (Record | number)[] = []
      const leave = groups.join({ mgid, joinState, qkey }, outcome => void outcomes.push(outcome))
      return { outcomes, leave }
    },
  }
}

describe('groups of a port', () => {
  it('have one membership for all programs, which the last one ends', () => {
    const { open, answer, join } = groupsOf()
    const [a, b] = [join(group(1), FULL), join(group(1), FULL)]
    assert.equal(open.length, 1)
    assert.deepEqual(answer(), [SET, FULL])
    assert.deepEqual(
      [...a.outcomes, ...b.outcomes].map(each => (each as Record).mlid),
      [0xc001, 0xc001],
    )
    a.leave()
    assert.equal(open.length, 0)
    b.leave()
    assert.deepEqual(answer(), [DELETE, FULL])
    join(group(1), FULL)
    assert.deepEqual(answer(), [SET, FULL], 'the group was left')
  })

  it('ask for join states that the port lacks, and leave those that nobody wants', () => {
    const { open, answer, join } = groupsOf()
    const sender = join(group(1), SEND_ONLY_FULL)
    assert.deepEqual(answer(), [SET, SEND_ONLY_FULL])
    const receiver = join(group(1), FULL)
    assert.deepEqual(answer(), [SET, FULL])
    receiver.leave()
    assert.deepEqual(answer(), [DELETE, FULL])
    assert.equal(open.length, 0)
    assert.equal(sender.outcomes.length, 1)
  })

  it('refuse who wants other attributes than the group has, and who the administrator refuses', () => {
    const { answer, join } = groupsOf()
    join(group(1), FULL, 1)
    answer()
    assert.deepEqual(join(group(1), FULL, 2).outcomes, [-Errno.EINVAL])
    const refused = join(group(2), FULL)
    answer(-Errno.EINVAL)
    assert.deepEqual(refused.outcomes, [-Errno.EINVAL])
    const again = join(group(2), FULL)
    answer()
    assert.equal(again.outcomes.length, 1)
  })

  it('are lost with the LID, the port, or the manager that knew of them, and can be joined again', () => {
    for (const name of ['LID_CHANGE', 'PORT_ERR', 'CLIENT_REREGISTER'] as const) {
      const { device, open, answer, join } = groupsOf()
      const member = join(group(1), FULL)
      answer()
      const joining = join(group(2), FULL)
      raisePort(device, 1, AsyncEventType.values[name])
      assert.equal(member.outcomes.at(-1), -ENETRESET, name)
      // Who was not a member yet asks again; the answer to the first query is of the manager before.
      open.shift()!.done(-Errno.ETIMEDOUT)
      assert.deepEqual(joining.outcomes, [])
      answer()
      assert.equal((joining.outcomes[0] as Record).mlid, 0xc001)
      member.leave()
      assert.equal(open.length, 0)
      join(group(1), FULL)
      assert.deepEqual(answer(), [SET, FULL])
    }
  })

  it('of which the administrator chooses the GID are not shared', () => {
    const { open, join } = groupsOf()
    join(new Uint8Array(16), FULL)
    join(new Uint8Array(16), FULL)
    assert.equal(open.length, 2)
  })
})

describe('a query', () => {
  const queried = () => {
    const device = portWithManager()
    let consumer: { receive(mad: Uint8Array, from: MadAddress): void; ended(tag: never, outcome: string): void }
    const aborted: unknown[] = []
    const sent: { readonly mad: Uint8Array; readonly to: MadAddress; readonly tag: unknown }[] = []
    const mads = {
      createAgent: (_device: Device, _options: unknown, given: typeof consumer) => {
        consumer = given
        const send = (mad: Uint8Array, to: MadAddress, { tag }: { tag: unknown }) => sent.push({ mad, to, tag }) > 0
        return { send, abort: (tag: unknown) => aborted.push(tag), close: () => {} }
      },
    }
    const administrator = new SubnetAdministrator(device, mads as never, () => 7)
    const answers: unknown[] = []
    const record = { dgid: group(1), numbPath: 1 }
    const ask = () =>
      administrator.ask({ name: 'PathRecord', method: MadMethod.GET, record, timeout: 1000 }, answer =>
        answers.push(answer),
      )
    const answer = (fromLid: number, status = 0) => {
      const { mad, tag, to } = sent.shift()!
      const request = saCodec.parse(mad)
      const data = saCodecs.PathRecord.emit({ dlid: 9 })
      const response = saCodec.emit({ ...request, status, data })
      consumer.receive(response, { ...to, lids: { local: LID, remote: fromLid, sl: 0, isGlobal: false } })
      consumer.ended(tag as never, 'answered')
      return request
    }
    const expire = () => consumer.ended(sent.shift()!.tag as never, 'timeout')
    return { device, administrator, ask, answer, expire, answers, aborted }
  }

  it('has the components that are given, and is answered with a record, or as refused or silent', () => {
    const { ask, answer, expire, answers } = queried()
    ask()
    const { componentMask } = answer(SM_LID)
    assert.deepEqual(saCodecs.PathRecord.names(componentMask), ['dgid', 'numbPath'])
    assert.equal((answers.pop() as SaRecord<'PathRecord'>).dlid, 9)
    ask()
    answer(SM_LID, SaStatus.NO_RECORDS)
    ask()
    expire()
    assert.deepEqual(answers, [-Errno.EINVAL, -Errno.ETIMEDOUT])
  })

  it('believes nobody but the manager, and tells nothing when it is not wanted any more', () => {
    const { administrator, ask, answer, answers, aborted } = queried()
    ask()
    answer(SM_LID + 5)
    assert.deepEqual(answers, [-Errno.ETIMEDOUT])
    ask()()
    assert.equal(aborted.length, 1)
    answer(SM_LID)
    ask()
    administrator.close()
    answer(SM_LID)
    assert.equal(answers.length, 1)
  })

  it('needs a manager', () => {
    const { device, ask } = queried()
    device.ports[0]!.attributes.smLid = 0
    assert.throws(ask, { code: 'EAGAIN', message: /mlx5_0 has no subnet manager/ })
  })
})

describe('the GID of an IP group', () => {
  const ipv6 = Uint8Array.of(0xff, 0x02, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
  const cases: readonly (readonly [gid: Uint8Array, text: string])[] = [
    [groupGid(mappedIpv4(Uint8Array.of(239, 77, 0, 1), 0), 0xffff), 'ff12:401b:ffff:0:0:0:f4d:1'],
    [groupGid(mappedIpv4(Uint8Array.of(239, 77, 0, 1), 0), 0x8001, true), 'ff12:4001:8001:0:0:0:f4d:1'],
    [groupGid(ipv6, 0xffff), 'ff12:601b:ffff:102:304:506:708:90a'],
    [broadcastGid(0xffff), 'ff12:401b:ffff:0:0:0:ffff:ffff'],
  ]
  for (const [gid, text] of cases) it(text, () => assert.equal(addressText(gid), text))
  it('may be the administrator’s own', () => {
    assert.ok(isGivenGid(Uint8Array.of(0xff, 0x12, 0xa0, 0x1b, ...new Uint8Array(12))))
    assert.ok(!isGivenGid(ipv6))
  })
})
