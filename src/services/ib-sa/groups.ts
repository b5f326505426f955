/*
 * Multicast groups of an InfiniBand port (IBA 15.2.5.17), as Linux's ib_sa: the port is one member of a group, however many
 * of its programs have joined, and leaves it with the last one. When the port has lost its memberships, by another LID or a
 * subnet manager that has forgotten them, the programs' memberships fail; a program may join again.
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

/** Who has joined, or wants to. */
interface Member {
  /** `JoinState` */
  readonly state: number
  readonly wanted: Partial<Record>
  /** The group, or −errno. After the group, once more with −ENETRESET if the port's membership is gone. */
  readonly report: (outcome: Record | number) => void
  hasJoined: boolean
}

interface Group {
  readonly members: Set<Member>
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

export class PortGroups {
  readonly #administrator: SubnetAdministrator
  readonly #groups = new Set<Group>()
  readonly close: () => void

  constructor(device: Device, administrator: SubnetAdministrator) {
    this.#administrator = administrator
    this.close = addEventHandler(device, ({ type }) => {
      if (LOSSES.includes(type)) this.#lose()
    })
  }

  /** `wanted`: with MGID (zeros: a new one) and join state. The returned function leaves the group, without a report. */
  join(wanted: Partial<Record> & Pick<Record, 'mgid' | 'joinState'>, report: Member['report']): () => void {
    const key = wanted.mgid.every(byte => byte === 0) ? undefined : addressKey(wanted.mgid)
    let group = key === undefined ? undefined : [...this.#groups].find(each => each.key === key)
    if (group === undefined) {
      group = { members: new Set(), key, record: undefined, joined: 0, isAsking: false }
      this.#groups.add(group)
    }
    const member = { state: wanted.joinState, wanted, report, hasJoined: false }
    group.members.add(member)
    const joined = group
    this.#advance(joined)
    return () => {
      if (joined.members.delete(member)) this.#advance(joined)
    }
  }

  /** Asks for what the members of a group want, one query after the other. */
  #advance(group: Group): void {
    const { members, record, joined } = group
    if (group.isAsking || !this.#groups.has(group)) return
    for (const member of members) {
      if (member.hasJoined) continue
      if (record === undefined || (joined & member.state) !== member.state) {
        this.#ask(group, MadMethod.SET, { ...member.wanted }, answer => {
          if (typeof answer === 'number') this.#fail(group, member, answer)
          else {
            group.record = answer
            group.key ??= addressKey(answer.mgid)
            group.joined |= member.state
          }
        })
        return
      }
      if (codec.matches(record, { ...record, ...member.wanted }, COMMON)) {
        member.hasJoined = true
        member.report(record)
      } else this.#fail(group, member, -Errno.EINVAL)
    }
    const unused = [...members].reduce((left, { state }) => left & ~state, joined)
    if (unused !== 0) {
      const { mgid, portGid } = record!
      this.#ask(group, SaMethod.DELETE, { mgid, portGid, joinState: unused }, () => {
        group.joined &= ~unused
      })
    } else if (members.size === 0) this.#groups.delete(group)
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

  #fail(group: Group, member: Member, errno: number): void {
    if (group.members.delete(member)) member.report(errno)
  }

  #lose(): void {
    const lost = [...this.#groups]
    this.#groups.clear()
    for (const { members } of lost) {
      const told = [...members]
      members.clear()
      for (const { report } of told) report(-ENETRESET)
    }
  }
}
