/*
 * Records of subnet administration about virtual lanes (IBA 15.2.5.5, 15.2.5.9). The manager sets one data lane and
 * leaves these tables to ports, so it asks the ports when a client asks. As with OpenSM, a client names no port of an
 * adapter.
 */
import type { SaRecord, SaRecordName, SmAttribute, SmAttributeName } from '../../transport/wire/mad/subnet.ts'
import type { Path } from './requests.ts'
import { endPort, type FoundNode, isSwitch, type Subnet } from './subnet.ts'

/** A request to a node, whose answer makes a record. */
export interface TableRead<N extends SaRecordName, A extends SmAttributeName = SmAttributeName> {
  readonly path: Path
  readonly attribute: A
  readonly modifier: number
  record(value: SmAttribute<A>): SaRecord<N>
}

/** The fields of a record that a client names. */
type Named<N extends SaRecordName> = Partial<SaRecord<N>>

/** Two blocks of low priority, two of high priority. */
const ARBITRATION_BLOCKS = [1, 2, 3, 4]

const nodesOf = ({ nodes }: Subnet, lid: number | undefined): { readonly node: FoundNode; readonly lid: number }[] =>
  [...nodes.values()].flatMap(node => {
    const own = endPort(node)?.info.lid ?? 0
    return own !== 0 && (lid === undefined || lid === own) ? { node, lid: own } : []
  })

const chosen = (all: Iterable<number>, one: number | undefined): number[] =>
  [...all].filter(number => one === undefined || one === number)

export const serviceLevelReads = (
  subnet: Subnet,
  { lid: wanted, inputPort, outputPort }: Named<'SLtoVLMappingTableRecord'>,
): TableRead<'SLtoVLMappingTableRecord', 'SLtoVLMappingTable'>[] =>
  nodesOf(subnet, wanted).flatMap(({ node, lid }) => {
    const [outputs, inputs] = isSwitch(node)
      ? [chosen(node.ports.keys(), outputPort), chosen(node.ports.keys(), inputPort)]
      : [[0], [0]]
    return outputs.flatMap(output =>
      inputs.map(input => ({
        path: node.path,
        attribute: 'SLtoVLMappingTable' as const,
        modifier: (input << 8) | output,
        record: ({ lanes }: SmAttribute<'SLtoVLMappingTable'>) => ({
          lid,
          inputPort: input,
          outputPort: output,
          lanes,
        }),
      })),
    )
  })

export const arbitrationReads = (
  subnet: Subnet,
  { lid: wanted, outputPort, blockNumber }: Named<'VLArbitrationTableRecord'>,
): TableRead<'VLArbitrationTableRecord', 'VLArbitrationTable'>[] =>
  nodesOf(subnet, wanted).flatMap(({ node, lid }) =>
    chosen(node.ports.keys(), isSwitch(node) ? outputPort : undefined).flatMap(port =>
      chosen(ARBITRATION_BLOCKS, blockNumber).map(block => ({
        path: node.path,
        attribute: 'VLArbitrationTable' as const,
        modifier: (block << 16) | port,
        record: ({ entries }: SmAttribute<'VLArbitrationTable'>) => ({
          lid,
          outputPort: port,
          blockNumber: block,
          entries,
        }),
      })),
    ),
  )
