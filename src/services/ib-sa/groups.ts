/*
 * Multicast groups of an InfiniBand port (IBA 15.2.5.17), as Linux's ib_sa: the port is one member of a group, however
 * many of its programs have joined, and leaves it with the last one. When the port has lost its memberships, by another
 * LID or a subnet manager that has forgotten them, the programs' memberships fail; a program may join again.
 */
import { addEventHandler } from '../../core/devices/clients.ts'
import type { Device } from '../../core/model.ts'
import { AsyncEventType } from '../../spec/enums.ts'
import { CallError, Errno } from '../../spec/errno.ts'
import { MadMethod } from '../../spec/wire/management.ts'
import { SaMethod } from '../../spec/wire/subnet.ts'
import { addressKey } from '../../transport/wire/address.ts'
import { type SaRecord, saCodecs } from '../../transport/wire/mad/subnet.ts'
import type { SubnetAdministrator } from './administrator.ts'

type Record = SaRecord<'MCMemberRecord'>

/** What a member asks for: with MGID (zeros: a new one) and join state. */
type Wanted = Partial<Record> & Pick<Record, 'mgid' | 'joinState'>

/** Who has joined, or wants to. */
interface Member {
  readonly wanted: Wanted
  /** The group, or −errno. After the group, once more with −ENETRESET if the port's membership is gone. */
  readonly report: (outcome: Record | number) => void
  /** Undefined: it is in none any more. */
  group: Group | undefined
}

interface Group {
  /** Who has joined. */
  readonly members: Set<Member>
  /** Who wants to. */
  readonly waiting: Set<Member>
  /** By bit of the join state: how many of both want it. */
  readonly wanted: number[]
  /** Undefined: the administrator chooses the GID. */
  key: string | undefined
  record: Record | undefined
  /** The port's join state. */
  joined: number
  isAsking: boolean
}

/** µs, as in Linux. */
const TIMEOUT = 3_000_000
const ENETRESET = 102
const { PORT_ERR, LID_CHANGE, CLIENT_REREGISTER } = AsyncEventType.values
const LOSSES: readonly number[] = [PORT_ERR, LID_CHANGE, CLIENT_REREGISTER]
const codec = saCodecs.MCMemberRecord
/** What all members of a group have in common. */
const COMMON = codec.mask('qkey', 'pkey', 'sl', 'flowLabel', 'trafficClass')

/** Bits of a join state. */
const JOIN_BITS = [0, 1, 2, 3] as const

const countState = ({ wanted }: Group, state: number, by: number): void => {
  for (const bit of JOIN_BITS) if ((state >> bit) & 1) wanted[bit]! += by
}

export class PortGroups {
  readonly #administrator: SubnetAdministrator
  readonly #groups = new Set<Group>()
  /** Those with a GID. */
  readonly #byKey = new Map<string, Group>()
  readonly close: () => void

  constructor(device: Device, administrator: SubnetAdministrator) {
    this.#administrator = administrator
    this.close = addEventHandler(device, ({ type }) => {
      if (LOSSES.includes(type)) this.#lose()
    })
  }

  /** The returned function leaves the group, without a report. */
  join(wanted: Wanted, report: Member['report']): () => void {
    const member: Member = { wanted, report, group: undefined }
    this.#add(member)
    return () => {
      const { group } = member
      this.#remove(member)
      if (group !== undefined) this.#advance(group)
    }
  }

  #add(member: Member): void {
    const { mgid, joinState } = member.wanted
    const key = mgid.every(byte => byte === 0) ? undefined : addressKey(mgid)
    let group = key === undefined ? undefined : this.#byKey.get(key)
    if (group === undefined) {
      const none = { record: undefined, joined: 0, isAsking: false }
      group = { members: new Set(), waiting: new Set(), wanted: JOIN_BITS.map(() => 0), key, ...none }
      this.#groups.add(group)
      if (key !== undefined) this.#byKey.set(key, group)
    }
    member.group = group
    group.waiting.add(member)
    countState(group, joinState, 1)
    this.#advance(group)
  }

  #remove(member: Member): void {
    const { group } = member
    if (group === undefined) return
    member.group = undefined
    group.waiting.delete(member)
    group.members.delete(member)
    countState(group, member.wanted.joinState, -1)
  }

  /** Asks for what the members of a group want, one query after the other. */
  #advance(group: Group): void {
    if (group.isAsking || !this.#groups.has(group)) return
    const { members, waiting, record, joined } = group
    for (const member of waiting) {
      const { joinState } = member.wanted
      if (record === undefined || (joined & joinState) !== joinState) {
        this.#ask(group, MadMethod.SET, { ...member.wanted }, answer => {
          if (typeof answer === 'number') this.#fail(member, answer)
          else this.#hasJoined(group, answer, joinState)
        })
        return
      }
      if (codec.matches(record, { ...record, ...member.wanted }, COMMON)) {
        waiting.delete(member)
        members.add(member)
        member.report(record)
      } else this.#fail(member, -Errno.EINVAL)
    }
    const unused = JOIN_BITS.reduce((left, bit) => (group.wanted[bit]! > 0 ? left & ~(1 << bit) : left), joined)
    if (unused !== 0) {
      const { mgid, portGid } = record!
      this.#ask(group, SaMethod.DELETE, { mgid, portGid, joinState: unused }, () => {
        group.joined &= ~unused
      })
    } else if (members.size === 0 && waiting.size === 0) this.#forget(group)
  }

  #hasJoined(group: Group, record: Record, joinState: number): void {
    group.record = record
    group.joined |= joinState
    if (group.key !== undefined) return
    group.key = addressKey(record.mgid)
    if (!this.#byKey.has(group.key)) this.#byKey.set(group.key, group)
  }

  #forget(group: Group): void {
    this.#groups.delete(group)
    if (group.key !== undefined && this.#byKey.get(group.key) === group) this.#byKey.delete(group.key)
  }

  #ask(
    group: Group,
    method: (typeof MadMethod)['SET'] | (typeof SaMethod)['DELETE'],
    record: Partial<Record>,
    done: (answer: Record | number) => void,
  ): void {
    group.isAsking = true
    const ended = (answer: Record | number): void => {
      group.isAsking = false
      if (!this.#groups.has(group)) return
      done(answer)
      this.#advance(group)
    }
    try {
      this.#administrator.ask({ name: 'MCMemberRecord', method, record, timeout: TIMEOUT }, ended)
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      ended(-error.errno)
    }
  }

  #fail(member: Member, errno: number): void {
    if (member.group === undefined) return
    this.#remove(member)
    member.report(errno)
  }

  /** Members lose their groups; who waits asks again. */
  #lose(): void {
    const lost = [...this.#groups]
    this.#groups.clear()
    this.#byKey.clear()
    for (const member of lost.flatMap(({ members }) => [...members])) this.#fail(member, -ENETRESET)
    for (const member of lost.flatMap(({ waiting }) => [...waiting])) {
      this.#remove(member)
      this.#add(member)
    }
  }
}
