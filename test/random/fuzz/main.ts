/*
 * The fuzzer as a program: `npm run fuzz -- [TARGET …] [--seconds N] [--seed N] [--save]`. It runs one target after
 * another, each for an equal part of the seconds. A finding ends the run of its target, and its input is kept in the
 * corpus; --save replaces the corpus, except the inputs of findings, by few small inputs with the same coverage.
 */
import { watchCoverage } from './coverage.ts'
import { Finding, fuzz, keepInput, minimise, replaceCorpus } from './fuzzer.ts'
import { targets } from './targets.ts'

const args = process.argv.slice(2)
const optionOf = (name: string, defaultValue: number): number => {
  const index = args.indexOf(name)
  return index < 0 ? defaultValue : Number(args.splice(index, 2)[1])
}
const seconds = optionOf('--seconds', 60)
const seed = optionOf('--seed', Date.now() & 0x7fff_ffff)
const savesCorpus = args.includes('--save')
const names = args.filter(arg => !arg.startsWith('-'))
const chosen = targets.filter(({ name }) => names.length === 0 || names.includes(name))
if (chosen.length === 0) throw new Error(`there is no target ${names}; there are ${targets.map(({ name }) => name)}`)

for (const target of chosen) {
  const coverage = watchCoverage('/dist/src/')
  const end = Date.now() + (seconds * 1000) / chosen.length
  try {
    const { executions, features, kept } = fuzz(target, seed, coverage, () => Date.now() < end)
    const text = `${executions} executions, ${coverage.total()} characters of code, ${features} features, ${kept.length} kept`
    console.log(`${target.name}, seed ${seed}: ${text}`)
    if (savesCorpus) {
      const newCoverage = watchCoverage('/dist/src/')
      const inputs = minimise(target, kept, newCoverage)
      replaceCorpus(target, inputs)
      newCoverage.stop()
      console.log(`${target.name}: corpus of ${inputs.length} inputs`)
    }
  } catch (error) {
    if (!(error instanceof Finding)) throw error
    console.error(error.message)
    console.error(`kept as test/fixtures/corpus/${target.name}/${keepInput(target, error.input, 'regression-')}`)
    process.exitCode = 1
  }
  coverage.stop()
}
