/*
 * Machine files: what is written is what was read, and what is refused, where and with which words.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it, test } from 'node:test'
import fc from 'fast-check'
import { shippedMachines } from '../../../src/cli/machine/shipped.ts'
import { InputError } from '../../../src/tools/topology/input-error.ts'
import {
  functionsOf,
  listText,
  machineText,
  numbersOf,
  parseMachine,
} from '../../../src/tools/topology/machine-file.ts'

const HEAD = 'userdma machine 1\n'
const PROCESSORS = 'package 0 cores=0+2..1+3\nnode 0 cpus=0-3 memory=16G distances=10\n'
const BUS = `${HEAD}${PROCESSORS}bus 0000:00 node=0\n`
const BRIDGE = '  0000:00:01.0 060400 8086:352a buses=01-02\n'

/** A file with all settings, as it is written. */
const FULL = `${HEAD}system vendor="ACME Inc." product="A 1" board="B"
package 0 cores=0+4..1+5
package 1 cores=2+6,3,7
node 0 cpus=0-1,4-5 memory=16G distances=10,21
node 2 cpus=2-3,6-7 memory=7936M distances=21,10
iommu dmar0,dmar1
bus 0000:00 node=0
  0000:00:01.0 060400 8086:352a rev=04 driver=pcieport speed=32.0 width=16 iommu=1/DMA-FQ acs=SrcValid+ReqRedir buses=01-04
    0000:01:00.0 060400 1000:c030 sub=1000:100b speed=16.0 width=8 max-speed=32.0 max-width=16 acs=off buses=02-03
      0000:02:00.0 030200 10de:2330 iommu=2
      0000:03:00.0 020700 15b3:1021 driver=mlx5_core node=2 rdma=mlx5_0 layer=infiniband rate=4xNDR net=ib0,ib1
bus 0001:80
  0001:80:00.0 020000 1d0f:efa1 driver=efa rdma=rdmap0s0 rate=4xEDR
`

describe('a machine file', () => {
  it('is written as it was read', () => {
    assert.equal(machineText(parseMachine(FULL, 'm')), FULL)
    const compact = `${BUS}# a comment\n\n${BRIDGE.replace(' buses=01-02', '')}      0000:02:00.0 020000 15b3:1017\n`
    const [bridge, adapter] = functionsOf(parseMachine(compact, 'm'))
    assert.deepEqual([bridge?.buses, adapter?.node], [[2, 2], 0], 'buses and nodes follow from the place')
  })

  it('of userdma has no addresses, and keeps all that its text says', () => {
    for (const [name, file] of shippedMachines()) {
      const text = readFileSync(file, 'utf8')
      const lines = text.split('\n').filter(line => !line.startsWith('#'))
      assert.equal(machineText(parseMachine(text, file)), lines.join('\n'), name)
      assert.doesNotMatch(text, /([\da-f]{2}:){5}[\da-f]{2}/, name)
    }
  })

  test('lists of numbers are read as they are written', () => {
    const numbers = fc.uniqueArray(fc.nat(4095), { maxLength: 60, size: 'max' }).map(list => list.sort((a, b) => a - b))
    fc.assert(fc.property(numbers, list => assert.deepEqual(numbersOf(listText(list)), list)))
  })
})

/** Files with the message for each, without the name of the file. */
const refused: readonly (readonly [source: string, message: RegExp])[] = [
  ['', /^1: this is no machine file: the first line of one is "userdma machine 1"$/],
  ['hosts: 2', /^1: this is no machine file/],
  ['# a\nuserdma machine 2\n', /^2: this is no machine file/],
  [HEAD, /^ a machine needs a line that begins with package/],
  [`${HEAD}package 0 cores=0\n`, /^ a machine needs a line that begins with node/],
  [`${HEAD}packages 0 cores=0\n`, /^2: "packages" is none of .*, did you mean "package"\?; functions are indented$/],
  [`${HEAD}package a cores=0\n`, /^2: package "a": give a number$/],
  [`${HEAD}package 0\n`, /^2: cores= is missing: give cores, such as 0\+4\.\.3\+7/],
  [`${HEAD}package 0 cores=0+4..3+8\n`, /^2: cores="0\+4\.\.3\+8": give cores/],
  [`${HEAD}package 0 cores=3..0\n`, /^2: cores="3\.\.0"/],
  [`${HEAD}package 0 cores=0 cores=1\n`, /^2: cores= is given twice$/],
  [`${HEAD}package 0 core=0\n`, /^2: core= is no setting of this line, which has cores, did you mean "cores"\?$/],
  [`${HEAD}package 0 cores=0..2,1\nnode 0 cpus=0-2 memory=1G distances=10\n`, /^ processor 1 is in two cores$/],
  [`${HEAD}package 0 cores=0\nnode 0 cpus=0-1 memory=1G distances=10\n`, /^ processor 1 is in a node, and in no/],
  [
    `${HEAD}package 0 cores=0\nnode 0 cpus=0 memory=1G distances=10,21\n`,
    /^ node 0 has 2 distances; there are 1 nodes$/,
  ],
  [`${HEAD}node 0 cpus=1,0 memory=1G distances=10\n`, /^2: cpus="1,0": give processors in rising order, such as 0-3,8/],
  [`${HEAD}node 0 cpus=0 memory=1GB distances=10\n`, /^2: memory="1GB": give the size of its memory, such as 512G/],
  [`${HEAD}node 0 cpus=0 memory=1G distances=0\n`, /^2: distances="0": give the distances to all nodes, from 1 to 255/],
  [`${HEAD}node 1024 cpus=0 memory=1G distances=10\n`, /^2: node "1024": give a number from 0 to 1023$/],
  [`${BUS}node 1 cpus= memory=1G distances=10\n`, /^5: nodes stand before buses$/],
  [`${BUS}bus 0000:00\n`, /^5: bus 0000:00 is there twice$/],
  [`${BUS}bus 00\n`, /^5: bus "00": give DOMAIN:BUS/],
  [`${BUS}bus 0000:01 node=3\n`, /^5: node="3": give 0 or -1, which is none$/],
  [`${HEAD}${PROCESSORS}  0000:00:01.0 060400 8086:352a\n`, /^4: "0000:00:01\.0" is indented, and below no bus$/],
  [`${BUS}  0000:00:01.0 060400\n`, /^5: "0000:00:01\.0 060400": such a line begins with ADDRESS CLASS VENDOR:DEVICE$/],
  [`${BUS}  00:01.0 060400 8086:352a\n`, /^5: "00:01\.0" is no PCI address/],
  [`${BUS}  0000:00:01.0 0604 8086:352a\n`, /^5: "0604" is no class: six hexadecimal digits/],
  [`${BUS}  0000:00:01.0 060400 8086\n`, /^5: "8086": give VENDOR:DEVICE/],
  [`${BUS}  0000:00:01.0 060400 8086:352a sub=1\n`, /^5: sub="1": give VENDOR:DEVICE/],
  [`${BUS}  0000:01:01.0 060400 8086:352a\n`, /^5: 0000:01:01\.0 is not on bus 0000:00$/],
  [
    `${BUS}${BRIDGE}    0000:03:00.0 020000 15b3:1017\n`,
    /^6: 0000:03:00\.0 stands below 0000:00:01\.0, whose buses are 01 to 02$/,
  ],
  [`${BUS}${BRIDGE}    0001:01:00.0 020000 15b3:1017\n`, /^6: 0001:01:00\.0 is of another domain/],
  [`${BUS}  0000:00:02.0 020000 15b3:1017\n    0000:01:00.0 020000 15b3:1017\n`, /^6: .* which is no bridge/],
  [`${BUS}${BRIDGE}${BRIDGE}`, /^6: 0000:00:01\.0 is there twice$/],
  [`${BUS}  0000:00:02.0 020000 15b3:1017 speed=8.0\n`, /^5: a link needs both speed= and width=$/],
  [`${BUS}  0000:00:02.0 020000 15b3:1017 speed=8 width=16\n`, /^5: speed="8": give one of 2\.5, 5\.0, 8\.0/],
  [
    `${BUS}  0000:00:02.0 020000 15b3:1017 rate=4xEDR\n`,
    /^5: rate= is of the port of an RDMA device: give rdma=NAME too$/,
  ],
  [
    `${BUS}  0000:00:02.0 020000 15b3:1017 rdma=a rate=4xEDT\n`,
    /^5: rate="4xEDT": give LANESxSPEED: 1, 2, 4, 8 or 12 lanes, and SDR,/,
  ],
  [`${BUS}  0000:00:02.0 020000 15b3:1017 rdma=a layer=ib\n`, /^5: layer="ib": give infiniband or ethernet$/],
  [
    `${BUS}  0000:00:02.0 020000 15b3:1017 rdma=a\n  0000:00:03.0 020000 15b3:1017 rdma=a\n`,
    /^6: rdma=a is there twice$/,
  ],
  [`${BUS}  0000:00:02.0 020000 15b3:1017 acs=All\n`, /^5: acs="All": give off, or some of SrcValid,/],
  [`${BUS}  0000:00:02.0 020000 15b3:1017 iommu=x\n`, /^5: iommu="x": give the number of a group/],
  [`${BUS}  0000:00:02.0 020000 15b3:1017 rdma=mlx5/0\n`, /^5: rdma="mlx5\/0": give a name of letters/],
  [`${HEAD}package 0 cores=${Array(1e5).fill('0..4095').join()}\n`, /^2: cores="[0-9.,]{60}…": give/],
  [`${HEAD}node 0 cpus=${Array(1e5).fill('0-4095').join()} memory=1G distances=10\n`, /^2: cpus="0-4095,/],
  [`${HEAD}system vendor="\x1b[31m"\n`, /^2: a machine file has no control characters$/],
  [`${HEAD}iommu dmar0,dmar0\n`, /^2: iommu dmar0 is there twice$/],
  [`${BUS}${BRIDGE.replace('01-02', '00-ff')}`, /^5: buses="00-ff": give the first and the last bus below, such as/],
  [`${BUS}${BRIDGE}${BRIDGE.replace('01.0', '02.0')}`, /^ bus 0000:01 is below 0000:00:01\.0, and below 0000:00:02\.0/],
  [`${BUS}${BRIDGE}bus 0000:01\n`, /^ bus 0000:01 is a root bus, and below 0000:00:01\.0 too$/],
  [`${BUS}  0000:00:02.0 020000 15b3:1017 serial=12\n`, /^5: serial= is no setting of this line/],
]

test('what a machine file refuses', () => {
  for (const [source, message] of refused)
    assert.throws(
      () => parseMachine(source, 'm'),
      (error: Error) => {
        assert.ok(error instanceof InputError)
        assert.match(error.message.replace(/^m:/, ''), message, source)
        return true
      },
      source,
    )
})
