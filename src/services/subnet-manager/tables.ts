/*
 * Records of subnet administration about tables of switches and ports (IBA 15.2.5.3, 15.2.5.4, 15.2.5.6, 15.2.5.12,
 * 15.2.5.18): what the manager has found and set.
 */
import { GUID_BLOCK, LFT_BLOCK, MFT_BLOCK, NO_PORT, PKEY_BLOCK } from '../../spec/wire/subnet.ts'
import type { SaRecord } from '../../transport/wire/mad/subnet.ts'
import type { Routes } from './routing.ts'
import { endPort, type FoundNode, type Subnet } from './subnet.ts'

const lidOf = (node: FoundNode): number => endPort(node)?.info.lid ?? 0

/** Blocks of `size` entries, the last one filled up. */
const blocksOf = <T>(list: readonly T[], size: number, empty: T): T[][] =>
  Array.from({ length: Math.ceil(list.length / size) }, (_, i) => {
    const block = list.slice(i * size, (i + 1) * size)
    return [...block, ...Array<T>(size - block.length).fill(empty)]
  })

export const switchRecords = ({ switches }: Subnet): SaRecord<'SwitchInfoRecord'>[] =>
  switches.flatMap(node => (node.switchInfo === undefined ? [] : [{ lid: lidOf(node), ...node.switchInfo }]))

export const linearRecords = ({ linear }: Routes): SaRecord<'LinearForwardingTableRecord'>[] =>
  [...linear].flatMap(([node, table]) =>
    blocksOf([...table], LFT_BLOCK, NO_PORT).map((ports, blockNumber) => ({ lid: lidOf(node), blockNumber, ports })),
  )

/** `masksOf`: the blocks that a switch has, by modifier; others are empty. */
export const multicastRecords = (
  { switches }: Subnet,
  masksOf: (node: FoundNode) => ReadonlyMap<number, readonly number[]>,
): SaRecord<'MulticastForwardingTableRecord'>[] =>
  switches.flatMap(node =>
    [...masksOf(node)].map(([modifier, masks]) => ({
      lid: lidOf(node),
      position: modifier >>> 28,
      blockNumber: modifier & 0x1ff,
      masks: masks.slice(0, MFT_BLOCK),
    })),
  )

export const pkeyRecords = ({ endPorts }: Subnet): SaRecord<'P_KeyTableRecord'>[] =>
  endPorts.flatMap(({ number: portNum, info: { lid }, pkeys: all }) =>
    blocksOf(all, PKEY_BLOCK, 0).map((pkeys, blockNumber) => ({ lid, blockNumber, portNum, pkeys })),
  )

/** Ports have their own GUID only: the manager sets no others. */
export const guidRecords = ({ endPorts }: Subnet): SaRecord<'GUIDInfoRecord'>[] =>
  endPorts.flatMap(({ node, info: { lid, guidCap } }) => {
    const all = [node.info.portGuid, ...Array<bigint>(Math.max(0, guidCap - 1)).fill(0n)]
    return blocksOf(all, GUID_BLOCK, 0n).map((guids, blockNumber) => ({ lid, blockNumber, guids }))
  })
