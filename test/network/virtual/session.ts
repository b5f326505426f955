/*
 * A program in virtual time: prints hashes of its packets and of its recording. Arguments: the seed, the fault rules, and
 * a folder for its files.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createNetwork } from '../../../src/library/index.ts'
import { startEcho, talk } from './echo.ts'

const [, , seed, fault = '', folder = '.'] = process.argv
const [packets, session] = ['packets.pcapng', 'session.udr'].map(name => join(folder, name)) as [string, string]
const hashOf = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex')

const network = createNetwork({ clock: 'virtual', seed: Number(seed), fault, record: session })
const stop = network.capture(packets)
const echo = await startEcho(network)
await talk(echo, 50)
const near = echo.left.ip({ address: '10.9.0.1/24' })
const distant = echo.right.ip({ address: '10.9.0.2/24' })
const ping = await near.ping('10.9.0.2')
await network.sleep(60_000)
for (const one of [near, distant]) one.close()
await echo.end()
stop()
console.log(network.now(), ping, hashOf(packets))
process.on('exit', () => console.log(hashOf(session)))
