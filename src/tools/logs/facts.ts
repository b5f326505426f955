/*
 * What stands in the log about how things are set, where it contradicts itself or the failure: GID indexes, path MTUs,
 * timeouts, lists of adapters, variables that do not exist, a network that is not RDMA.
 */
import { didYouMean } from '../../base/suggest.ts'
import type { Fact, LogAnalysis } from './analysis.ts'

export interface Remark {
  /** Something is wrong with it; otherwise it is worth to know. */
  readonly isContradiction: boolean
  readonly text: string
  readonly source: string
  readonly line: number
}

/** Of verbs and NCCL: 1 to 5. */
const mtuBytes = (value: string): string => (/^[1-5]$/.test(value) ? String(128 << Number(value)) : value)

/** Variables of NCCL that choose or set a network (its NCCL_PARAMs and getenvs, 2.30). */
const ncclVariables: readonly string[] =
  'ADAPTIVE_ROUTING AR_THRESHOLD DATA_DIRECT DEVICE_PCI_ORDER DISABLE ECE_ENABLE FIFO_TC GID_INDEX HCA ADDR_FAMILY ADDR_RANGE MERGE_NICS MERGE_VFS MQP_RETRY_ALL MQP_RETRY_CNT MQP_RETRY_SLEEP_MSEC OOO_RQ PCI_RELAXED_ORDERING PKEY PREPOST_RECEIVE_WORK_REQUESTS QPS_PER_CONNECTION QUERY_PORT_SPEED RECEIVER_SIDE_MATCHING_SCHEME RETRY_CNT RETURN_ASYNC_EVENTS ROCE_VERSION_NUM ROUTABLE_FLID_GID_INDEX SL SPLIT_DATA_ON_QPS SUBNET_AWARE_ROUTING SUBNET_PREFIX_LEN TC TIMEOUT USE_INLINE WARN_RAIL_LOCAL RESILIENCY_PORT_FAILOVER RESILIENCY_PORT_RECOVERY'
    .split(' ')
    .map(name => `NCCL_IB_${name}`)

/**
 * Seconds of `timeout` (4.096 µs × 2^timeout) and how often it may end; adapters may wait up to four times as long (IBA
 * 9.7.6.1.3).
 */
const timeoutText = (timeout: number, retries: number): string => {
  const each = 4.096e-6 * 2 ** timeout
  const text = (seconds: number): string =>
    seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`
  return `${text(each)} for each of ${retries + 1} tries, ${text(each * (retries + 1))} in all; adapters may wait up to four times as long`
}

const byVariable = (facts: readonly Fact[], variable: string): ReadonlyMap<string, readonly Fact[]> => {
  const map = new Map<string, Fact[]>()
  for (const fact of facts)
    if (fact.variable === variable) {
      const list = map.get(fact.value)
      if (list === undefined) map.set(fact.value, [fact])
      else list.push(fact)
    }
  return map
}

const hostsText = (facts: readonly Fact[]): string => {
  const hosts = [...new Set(facts.map(({ host, source }) => host ?? source))]
  return hosts.length > 4 ? `${hosts.slice(0, 3).join(', ')} and ${hosts.length - 3} others` : hosts.join(', ')
}

/** Facts that differ between hosts where they should not. */
const MUST_AGREE: readonly (readonly [variable: string, why: string, show?: (value: string) => string])[] = [
  ['path MTU', 'the smaller one must be used by both', mtuBytes],
  ['Mtu', 'the smaller one must be used by both'],
  ['GID index', 'the same index is often another address or type on another host: compare the GIDs'],
  ['Link type', 'InfiniBand and Ethernet cannot talk to each other'],
  ['network', 'some of the hosts do not use RDMA'],
  ['provider', 'the ends use different providers'],
  ['NCCL_IB_HCA', 'the rails of the hosts must match'],
  ['NCCL_IB_TC', 'the switches give one of them another priority'],
  ['NCCL_IB_TIMEOUT', 'the ends give up after different times'],
]

/** Where a GID of zeros stands. */
export const emptyGidIn = ({
  facts,
  failures,
}: LogAnalysis): { readonly host: string | undefined; readonly source: string; readonly line: number } | undefined => {
  const isEmpty = (gid: string | undefined): boolean => gid !== undefined && /^(?:::|0(?::0)+|(?:0+:)+0+)$/.test(gid)
  return (
    facts.find(({ variable, value }) => variable === 'GID' && isEmpty(value)) ??
    failures.find(({ fields }) => isEmpty(fields.localGid) || isEmpty(fields.remoteGid))
  )
}

export const remarksOf = (analysis: LogAnalysis): readonly Remark[] => {
  const { facts, failures } = analysis
  const remarks: Remark[] = []
  const add = (isContradiction: boolean, text: string, { source, line }: { source: string; line: number }): void =>
    void remarks.push({ isContradiction, text, source, line })
  const value = (variable: string): Fact | undefined => facts.find(fact => fact.variable === variable)

  for (const [variable, why, show = (text: string) => text] of MUST_AGREE) {
    const values = byVariable(facts, variable)
    const [first, second] = [...values.values()]
    const owners = new Set(facts.filter(fact => fact.variable === variable).map(({ host, source }) => host ?? source))
    if (first === undefined || second === undefined || owners.size < 2) continue
    const each = [...values].slice(0, 4).map(([text, list]) => `${show(text)} on ${hostsText(list)}`)
    add(true, `${variable} differs: ${each.join('; ')}. ${why}`, second[0]!)
  }
  const network = value('network')
  if (network !== undefined && /^Socket$/i.test(network.value))
    add(true, 'NCCL uses TCP sockets ("Using network Socket"), not RDMA: it is slow, and nothing of RDMA runs', network)
  const disabled = value('NCCL_IB_DISABLE')
  if (disabled !== undefined && disabled.value !== '0')
    add(true, `NCCL_IB_DISABLE=${disabled.value}: RDMA is switched off`, disabled)
  const timeout = value('NCCL_IB_TIMEOUT')
  if (timeout !== undefined && /^\d{1,2}$/.test(timeout.value)) {
    const retries = Number(value('NCCL_IB_RETRY_CNT')?.value ?? 7)
    add(false, `NCCL_IB_TIMEOUT=${timeout.value}: ${timeoutText(Number(timeout.value), retries)}`, timeout)
  }
  for (const fact of facts)
    if (/^NCCL_IB_/.test(fact.variable) && !ncclVariables.includes(fact.variable)) {
      const meant = didYouMean(fact.variable, ncclVariables)
      if (meant !== '') add(true, `${fact.variable} is no variable of NCCL; ${/"(\w+)"/.exec(meant)?.[1]} is`, fact)
    }
  const gids = failures.flatMap(failure =>
    [failure.fields.localGid, failure.fields.remoteGid].flatMap(gid => (gid === undefined ? [] : [{ gid, failure }])),
  )
  const linkLocal = gids.find(({ gid, failure }) => /^fe80:/i.test(gid) && failure.fields.link !== 'IB')
  const routed = gids.find(({ gid }) => /ffff:/i.test(gid))
  if (linkLocal !== undefined && routed !== undefined)
    add(
      true,
      `one end uses a link-local GID (${linkLocal.gid}), the other one of IPv4 (${routed.gid}): they cannot reach each other`,
      linkLocal.failure,
    )
  else if (linkLocal !== undefined)
    add(
      false,
      `the GID ${linkLocal.gid} is link-local: it is not routed, so that both ends must be in one layer 2 network`,
      linkLocal.failure,
    )
  const printed = facts.filter(({ variable }) => variable === 'GID')
  const local = printed.find(fact => /^(?:254:128:|fe80:)/.test(fact.value))
  const ipv4 = printed.find(fact => /:255:255:|::ffff:/.test(fact.value))
  if (local !== undefined && ipv4 !== undefined)
    add(
      true,
      `one end uses a link-local GID (${local.value}), the other one of IPv4 (${ipv4.value}): they cannot reach each other`,
      local,
    )
  const empty = emptyGidIn(analysis)
  if (empty !== undefined)
    add(true, `a GID is all zeros: the GID index is empty on ${empty.host ?? 'that host'}`, empty)
  const memlock = failures.find(
    ({ fields, kind }) => kind === 'call' && fields.value !== undefined && /reg_|create_/.test(fields.call ?? ''),
  )
  if (memlock !== undefined && /^\d+$/.test(memlock.fields.value!) && memlock.errno === 12)
    add(true, `only ${memlock.fields.value} kbytes of memory may be locked (ulimit -l) in this process`, memlock)
  return remarks
}
