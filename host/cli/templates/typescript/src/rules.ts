// The decisions of the handler, without host calls.

/** A greeting with a word and a name. */
export function greeting(word: string, who: string): string {
  return `${word} ${who}`;
}
