#!/usr/bin/env python3
"""Prints how much of each section of swerex.h the tests reach, lowest first, and the lines that none
does: coverage.py HEADER < the JSON of gcovr. [keep] is mostly a process that leaves by _exit, which
writes no counters: its numbers are too low."""
import json
import re
import sys


def section_starts(header):
    """Lists (first line, key) of each section, in the order of the file."""
    with open(header, encoding='utf-8') as file:
        lines = file.read().split('\n')
    banners = ((number, re.match(r' \* \[([a-z]+)\] ', line)) for number, line in enumerate(lines, 1))
    return [(number, match[1]) for number, match in banners
            if match and lines[number - 2].startswith('/* ====')]


def ranges(numbers, code):
    """Writes lines as ranges, which go over lines that are no code."""
    runs = []
    for number in numbers:
        if runs and not any(line in code for line in range(runs[-1][1] + 1, number)):
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ' '.join(str(first) if first == last else f'{first}-{last}' for first, last in runs)


def main():
    starts, counts = section_starts(sys.argv[1]), {}
    for file in json.load(sys.stdin)['files']:
        for line in file['lines']:
            number = line['line_number']
            counts[number] = max(counts.get(number, 0), line['count'])
    rows = []
    for (first, key), (end, _) in zip(starts, starts[1:] + [(sys.maxsize, None)]):
        code = {number for number in counts if first <= number < end}
        unreached = sorted(number for number in code if counts[number] == 0)
        if code:
            rows.append((1 - len(unreached) / len(code), key, len(code), ranges(unreached, code)))
    for share, key, size, missing in sorted(rows):
        print(f'{100 * share:5.1f} %  {key:<9}{size:5} lines  {missing}')
    reached = sum(count > 0 for count in counts.values())
    print(f'{100 * reached / max(1, len(counts)):5.1f} %  of {len(counts)} lines')


main()
