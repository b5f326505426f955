/*
 * Answers about the objects of devices.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { DaemonDevice } from '../../../src/daemon/devices/devices.ts'
import type { Managed } from '../../../src/daemon/netlink/answers.ts'
import { resourceAnswers } from '../../../src/daemon/netlink/resources.ts'
import { decodeAttributes, type Entries } from '../../../src/uapi/nldev/attributes.ts'
import { machine, program } from '../../drivers/rxe/machine.ts'
import { destroyTarget, makeTarget, openDomain } from '../../drivers/rxe/srq-and-xrc.ts'
import { attributeOf } from './test-socket.ts'

it('an XRC target counts as one queue pair in the summary, as in the list, however many programs have it open', () => {
  const m = machine(1)
  const [rxe] = m.devices
  const owner = program(m)
  const other = program(m)
  const file = 0x100
  const first = makeTarget(owner, openDomain(owner, file))
  const found = { spec: { name: 'rxe0', address: '127.0.0.1' }, device: rxe.device, network: rxe } as DaemonDevice
  const daemon = {
    core: m.core,
    devices: { all: [found], atNode: () => found },
    failures: { ownerOf: () => undefined },
  } as unknown as Managed
  const bodies = (command: 'RES_GET' | 'RES_QP_GET'): Entries[] =>
    [
      ...(resourceAnswers[command]?.list?.(daemon, {
        attributes: { DEV_INDEX: rxe.device.index },
        isAdmin: true,
        namespace: undefined,
        namespaceOfFd: () => undefined,
      }) ?? []),
    ]
      .filter(body => body !== undefined)
      .map(decodeAttributes)
  const counts = (): unknown[] => {
    const [body = []] = bodies('RES_GET')
    const summary = attributeOf(body, 'RES_SUMMARY') as readonly (readonly [string, Entries])[]
    const qps = summary.find(([, entry]) => attributeOf(entry, 'RES_SUMMARY_ENTRY_NAME') === 'qp')
    const listed = bodies('RES_QP_GET').flatMap(body => attributeOf(body, 'RES_QP') as Entries)
    return [Number(attributeOf(qps?.[1] ?? [], 'RES_SUMMARY_ENTRY_CURR')), listed.length]
  }
  const [before] = counts()
  makeTarget(other, openDomain(other, file), first.qpn)
  assert.deepEqual(counts(), [before, before])
  destroyTarget(first)
  assert.deepEqual(counts(), [before, before])
})
