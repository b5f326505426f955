/*
 * "Did you mean": the name that a mistyped word is most like.
 */

/** Insertions, deletions, replacements and exchanges of neighbours that make one word of the other. */
const distance = (a: string, b: string): number => {
  let before: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1
      let least = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + cost)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) least = Math.min(least, before[j - 2]! + 1)
      row.push(least)
    }
    before = last
    last = row
  }
  return last[b.length]!
}

/** Longer words are not names. */
const MAX_LENGTH = 64

/** `, did you mean "NAME"?`; '' if no name is near: at most a third of the word differs. */
export const didYouMean = (word: string, names: readonly string[]): string => {
  if (word.length > MAX_LENGTH) return ''
  const typed = word.toLowerCase()
  const nearest = names
    .map(name => ({ name, edits: distance(typed, name.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits)[0]
  return nearest !== undefined && nearest.edits <= word.length / 3 ? `, did you mean "${nearest.name}"?` : ''
}

/** `there is no device NAME; there are …`, with the nearest of the names. */
export const noDeviceText = (name: string, names: readonly string[]): string =>
  `there is no device ${name}; there are ${names.join(', ') || 'none'}${didYouMean(name, names)}`
